"""The store of replies on a real S3 server, and on one that fails."""

import gc
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rlhi.engine import generate, open_engine
from rlhi.engine import store as local
from rlhi.engine.replies import delete
from rlhi.engine.s3 import bucket, claims, parts
from rlhi.engine.s3 import store as shared
from rlhi.engine.s3.bucket import Bucket
from rlhi.engine.s3.store import SharedStore
from rlhi.engine.stored import StoredEngine
from rlhi.errors import InputError
from rlhi.sources import list_files
from tests.s3_server import Fault, Proxy, client, use
from tests.test_store import EXPECTED, REQUESTS, SAMPLING, Witness

KEYS = [f"{number:032}".encode() for number in range(20)]


class Pods:
    """Starts stores as pods would: each with an empty disk."""

    def __init__(self, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, proxy: Proxy) -> None:
        self.url, self.proxy = url, proxy
        self._folder, self._monkeypatch = folder, monkeypatch

    def start(self, identity: str = "witness", disk: str | None = None) -> SharedStore:
        self._monkeypatch.setenv("RLHI_CACHE", str(self._folder / (disk or uuid.uuid4().hex)))
        return SharedStore(self.url, identity)

    def ask(self, witness: Witness, n: int = 2, disk: str | None = None) -> list[list[str]]:
        found = generate(StoredEngine(witness.engine, self.start(disk=disk)), REQUESTS, SAMPLING, n, 0)
        return [[reply.text for reply in group] for group in found]

    def names(self, below: str = "") -> list[str]:
        return Bucket(f"{self.url}{below}").names("")

    def parts(self) -> list[str]:
        return [name for name in self.names() if "/parts/" in name]

    def fail(self, *faults: Fault | None) -> None:
        """One of ``faults`` for each request, at random."""
        draw = random.Random(0)
        self.proxy.fault = lambda method, path: draw.choice(faults)

    def restart(self) -> None:
        """What a new process finds: the server is back, the stores of the old one are gone."""
        self.heal()
        gc.collect()
        start = uuid.uuid4().hex
        for module in (claims, local):
            self._monkeypatch.setattr(module, "START", start)

    def heal(self) -> None:
        self.proxy.fault = lambda method, path: None


@pytest.fixture(scope="module")
def proxy(s3: str) -> Iterator[Proxy]:
    client(s3).create_bucket(Bucket="replies")
    with Proxy(s3) as made:
        yield made


@pytest.fixture
def pods(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pods]:
    use(proxy.url, monkeypatch)
    monkeypatch.setattr(bucket, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(bucket, "LONGEST_WAIT", 0.1)
    monkeypatch.setattr(shared, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(shared, "PAUSE", 0.05)
    made = Pods(f"s3://replies/{uuid.uuid4().hex}", tmp_path, monkeypatch, proxy)
    yield made
    made.heal()


def rows(numbers: range) -> list[parts.Row]:
    return [(f"{number:032}".encode(), f'["value {number}"]') for number in numbers]


def test_part_comes_back_as_it_was_and_no_bit_of_it_can_change_unseen() -> None:
    expected = rows(range(300))
    whole, draw = parts.encode(expected), random.Random(0)
    assert parts.decode(whole) == expected
    for _ in range(200):
        broken = bytearray(whole)
        broken[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        with suppress(parts.BrokenError):
            assert parts.decode(bytes(broken)) == expected  # a bit of the statistics, say
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        with pytest.raises(parts.BrokenError):
            parts.decode(whole[:length])


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "s3://B u/x", "s3://bucket/a?b"])
def test_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="is no address on S3"):
        Bucket(url)


def test_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    use("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr(bucket, "PATIENCE", 0.1)
    monkeypatch.setattr(bucket, "FIRST_WAIT", 0.01)
    with pytest.raises(InputError, match=r"^s3://replies/x/.* at http://127\.0\.0\.1:9: no answer in \d s \(at last: "):
        SharedStore("s3://replies/x", "witness")


@pytest.mark.slow
def test_another_pod_asks_only_for_what_is_missing(pods: Pods) -> None:
    stopped, rest, again = Witness(most=3), Witness(), Witness()
    with pytest.raises(KeyboardInterrupt):
        pods.ask(stopped)
    assert pods.ask(rest) == EXPECTED
    assert sorted(stopped.asked + rest.asked) == sorted((f"r{i}", number) for i in range(5) for number in range(2))
    assert pods.ask(again) == EXPECTED
    assert again.asked == []


@pytest.mark.slow
def test_reply_comes_back_as_it_was(pods: Pods) -> None:
    odd = '["a \\"quoted\\"\\n\\u0000 half \\ud83d of a pair, \U0001f600", 1e-300]'
    first = pods.start()
    with first.claim(KEYS[:1]) as mine:
        first.put(mine[0], odd)
    assert list(pods.start().find(KEYS)) == [(KEYS[0], odd)]


@pytest.mark.slow
def test_stage_uses_it_where_it_is_configured_and_arrow_reads_it_by_the_same_variables(
    pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhi.config import EngineConfig

    script = tmp_path / "script.json"
    script.write_text('[{"contains": "", "reply": "yes"}]')
    monkeypatch.setenv("RLHI_REPLIES", pods.url)
    monkeypatch.setenv("RLHI_CACHE", str(tmp_path / "cache"))
    assert generate(open_engine(EngineConfig(kind="scripted", script=str(script))), REQUESTS, SAMPLING, 1, 0)
    listed = list_files(f"{pods.url}/rlhi-replies")
    assert [file.name for file in listed if file.name.endswith(".parquet")] == [
        Path(name).name for name in pods.parts()
    ]
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_worker_reads_only_parts_of_its_own_engine(pods: Pods) -> None:
    pods.ask(Witness())
    pods.proxy.seen.clear()
    other = Witness("other model")
    store = pods.start("other model")
    assert generate(StoredEngine(other.engine, store), REQUESTS, SAMPLING, 1, 0)
    assert len(other.asked) == 5
    assert not [path for method, path in pods.proxy.seen if method == "GET" and "/parts/" in path]


@pytest.mark.slow
def test_replies_are_sent_while_a_worker_works(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "EVERY", 0.1)
    store = pods.start()
    with store.claim(KEYS) as mine:
        store.put(mine[0], '["early"]')
        until(lambda: bool(pods.parts()))
        assert list(pods.start().find(KEYS)) == [(KEYS[0], '["early"]')]


@pytest.mark.slow
def test_many_rows_are_sent_before_their_time(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS", 5)
    store = pods.start()
    with store.claim(KEYS) as mine:
        for key in mine[:5]:
            store.put(key, '["x"]')
        until(lambda: bool(pods.parts()))


def until(done: Any) -> None:
    for _ in range(200):
        if done():
            return
        time.sleep(0.05)
    raise TimeoutError


@pytest.mark.slow
def test_workers_share_the_work_and_no_question(pods: Pods) -> None:
    """Many claim the same keys at the same moment, and some answers of the server get lost."""
    stores = [pods.start() for _ in range(6)]
    pods.fail("lose the answer", "503", None, None, None, None)
    asked: Counter[bytes] = Counter()

    def work(store: SharedStore) -> None:
        while len(list(store.find(KEYS))) < len(KEYS):
            with store.claim(KEYS) as mine:
                for key in mine[: len(mine) // 2 + 1]:  # not all at once
                    asked[key] += 1
                    store.put(key, '["x"]')

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, stores))
    pods.heal()
    assert dict(pods.start().find(KEYS)).keys() == set(KEYS)
    assert asked == Counter(KEYS)


@pytest.mark.slow
def test_no_two_hold_a_key_at_a_time(pods: Pods) -> None:
    stores, held, gate = [pods.start() for _ in range(6)], list[bytes](), threading.Lock()
    pods.fail("lose the answer", None, None)

    def work(store: SharedStore) -> None:
        for _ in range(5):
            with store.claim(random.sample(KEYS, 10)) as mine:
                with gate:
                    assert not set(held) & set(mine)
                    held.extend(mine)
                time.sleep(0.02)
                with gate:
                    for key in mine:
                        held.remove(key)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, stores))


@pytest.mark.slow
def test_worker_that_came_and_went_between_two_looks_is_noticed(pods: Pods) -> None:
    first, other = pods.start(), pods.start()
    looks: list[list[bytes]] = []

    def missing(keys: Sequence[bytes]) -> list[bytes]:
        free = first._missing(keys)
        if not looks:
            with other.claim(KEYS[:1]):
                other.put(KEYS[0], '["x"]')
        looks.append(free)
        return free

    with first.claim(KEYS[-1:]):
        pass  # from now on the index is one that nobody is in
    assert first._claims.take(KEYS[:2], missing)[1] == KEYS[1:2]
    assert looks == [KEYS[:2], KEYS[1:2]]


@pytest.mark.slow
def test_replies_are_there_before_a_claim_is_given_up(pods: Pods) -> None:
    """Also where the first try to send them fails."""
    store = pods.start()
    fails: Iterator[Fault] = iter(["503"])
    with store.claim(KEYS[:1]):
        store.put(KEYS[0], '["x"]')
        pods.proxy.seen.clear()
        pods.proxy.fault = lambda method, path: next(fails, None) if "/parts/" in path else None
    (_, sent) = [n for n, (method, path) in enumerate(pods.proxy.seen) if method == "PUT" and "/parts/" in path]
    (left,) = [n for n, (method, path) in enumerate(pods.proxy.seen) if method == "PUT" and "claims.json" in path]
    assert sent < left


@pytest.mark.slow
def test_claims_of_a_pod_that_lives_stay_and_are_given_up_with_an_error(pods: Pods) -> None:
    first, other = pods.start(), pods.start()

    def fail() -> None:
        with first.claim(KEYS[:2]):
            with other.claim(KEYS[:3]) as mine:
                assert mine == KEYS[2:3]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with other.claim(KEYS[:3]) as mine:
        assert mine == KEYS[:3]
    assert not [name for name in pods.names() if "/claims/" in name]


@pytest.mark.slow
def test_claims_of_another_pod_are_free_when_its_lease_has_run_out(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE", 2.0)
    gone, other = pods.start(), pods.start()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "elsewhere")
        gone._claims.take(KEYS[:2], list)  # and never a word again
    with other.claim(KEYS[:2]) as mine:
        assert mine == []
    time.sleep(3.1)  # the clock of the server has whole seconds
    with other.claim(KEYS[:2]) as mine:
        assert mine == KEYS[:2]


@pytest.mark.slow
def test_claims_are_renewed_while_a_worker_is_slow(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE", 2.0)
    first, other = pods.start(), pods.start()
    with first.claim(KEYS[:1]):
        time.sleep(4)
        with other.claim(KEYS[:2]) as mine:
            assert mine == KEYS[1:2]


@pytest.mark.slow
def test_claims_of_a_process_that_died_here_are_free_at_once(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(claims, "START", "another start of the same process")
        pods.start()._claims.take(KEYS[:2], list)
    with pods.start().claim(KEYS[:2]) as mine:
        assert mine == KEYS[:2]


@pytest.mark.slow
def test_worker_that_was_thought_dead_does_no_harm(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    late, heir = pods.start(), pods.start()
    with late.claim(KEYS[:2]) as mine:
        assert mine == KEYS[:2]
        with monkeypatch.context() as later:
            later.setattr(claims, "alive", lambda *_, now: False)
            with heir.claim(KEYS[:2]) as taken:
                assert taken == KEYS[:2]
                heir.put(KEYS[0], '["first"]')
        late.put(KEYS[0], '["second"]')
        late.put(KEYS[1], '["only"]')
    assert dict(pods.start().find(KEYS)) == {KEYS[0]: '["first"]', KEYS[1]: '["only"]'}


@pytest.mark.slow
def test_many_parts_become_few_and_a_reader_meanwhile_misses_none(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MERGED", 4)
    writer = pods.start()
    reader = pods.start()
    listed = reader._bucket.names

    def late(folder: str, patience: float | None = None) -> list[str]:
        """A list that is old when it arrives: all that is in it has been merged."""
        found = listed(folder, patience)
        while len([name for name in pods.parts() if name.endswith(tuple(found))]) and writer._sender._small:
            writer._sender.add(*rows(range(100, 101))[0])
            writer._sender.send()
        return found

    for key in KEYS[:3]:
        with writer.claim([key]):
            writer.put(key, '["x"]')
    assert len(pods.parts()) == 3
    monkeypatch.setattr(reader._bucket, "names", late)
    with reader.claim(KEYS[:4]) as mine:
        assert mine == KEYS[3:4]
    assert len(pods.parts()) == 1
    assert len(list(pods.start().find(KEYS))) == 3


@pytest.mark.slow
def test_broken_part_is_left_out_and_told(pods: Pods, s3: str, caplog: pytest.LogCaptureFixture) -> None:
    store = pods.start()
    for key in KEYS[:2]:
        with store.claim([key]):
            store.put(key, '["x"]')
    name = f"{pods.url.removeprefix('s3://replies/')}/{pods.parts()[0]}"
    direct = client(s3)
    body = direct.get_object(Bucket="replies", Key=name)["Body"].read()
    direct.put_object(Bucket="replies", Key=name, Body=body[:-20])
    assert list(pods.start().find(KEYS)) == [(KEYS[1], '["x"]')]
    assert name in caplog.text


@pytest.mark.slow
def test_answer_that_is_cut_off_on_the_way_is_fetched_again(pods: Pods) -> None:
    with (store := pods.start()).claim(KEYS[:1]):
        store.put(KEYS[0], '["x"]')
    cuts: Iterator[Fault] = iter(["drop", "drop"])
    pods.proxy.fault = lambda method, path: next(cuts, None) if "/parts/" in path else None
    assert len(list(pods.start().find(KEYS))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["no conditions", "501 on conditions"])
def test_server_without_conditional_writes_is_refused(pods: Pods, fault: Fault) -> None:
    pods.fail(fault)
    with pytest.raises(InputError, match=rf"{pods.url}.*knows no conditional writes"):
        pods.start()
    assert pods.names() == []


@pytest.mark.slow
def test_bucket_that_does_not_exist_and_missing_credentials_are_one_line(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"s3://elsewhere.*bucket does not exist"):
        SharedStore("s3://elsewhere/x", "witness")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InputError, match=r"s3://replies.*credentials.*AWS_") as caught:
        pods.start()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_server_that_is_away_for_a_while_is_waited_for(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "EVERY", 0.02)
    first = Witness()
    store = pods.start()
    pods.fail("503", "drop")
    threading.Timer(1, pods.heal).start()
    assert generate(StoredEngine(first.engine, store), REQUESTS, SAMPLING, 2, 0)
    again = Witness()
    assert pods.ask(again) == EXPECTED
    assert again.asked == []


@pytest.mark.slow
def test_server_that_stays_away_ends_the_work_and_what_was_answered_is_sent_by_the_next_start(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "EVERY", 0.02)
    monkeypatch.setattr(bucket, "PATIENCE", 0.3)
    monkeypatch.setattr(shared, "LAST", 0.0)
    first = Witness()

    def hear(key: str, number: int) -> None:
        first.asked.append((key, number))
        if len(first.asked) > 2:
            pods.fail("503")
            time.sleep(0.4)

    first.engine._hear = hear
    store = pods.start(disk="kept")
    with pytest.raises(InputError, match=rf"{pods.url}/.* at {pods.proxy.url}: no answer in \d+ s.*503"):
        generate(StoredEngine(first.engine, store), REQUESTS, SAMPLING, 2, 0)
    assert 3 <= len(first.asked) < 10
    del store
    pods.restart()
    rest = Witness()
    assert pods.ask(rest, disk="kept") == EXPECTED
    assert len(rest.asked) == 10 - len(first.asked)
    assert pods.ask(again := Witness()) == EXPECTED
    assert again.asked == []
    assert not list((pods._folder / "kept").rglob("*.sqlite"))


@pytest.mark.slow
def test_end_waits_for_the_server_and_then_says_where_the_replies_are(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PATIENCE", 0.3)

    def work(store: SharedStore) -> None:
        with store.claim(KEYS[:1]):
            store.put(KEYS[0], '["x"]')
            pods.fail("503")

    with pytest.raises(InputError, match=r"1 replies wait in .*\.sqlite"):
        work(pods.start(disk="kept"))
    pods.restart()
    assert list(pods.start(disk="kept").find(KEYS)) == [(KEYS[0], '["x"]')]
    assert list(pods.start().find(KEYS)) == [(KEYS[0], '["x"]')]


@pytest.mark.slow
def test_copy_of_a_process_that_works_is_left_to_it(pods: Pods) -> None:
    first = pods.start(disk="shared")
    with first.claim(KEYS[:1]):
        first.put(KEYS[0], '["x"]')
        second = pods.start(disk="shared")
        assert list(second.find(KEYS)) == []
        assert first._copy.path.exists()


@pytest.mark.slow
def test_replies_of_every_engine_are_erased_and_nothing_else(pods: Pods, s3: str) -> None:
    pods.ask(Witness())
    generate(StoredEngine(Witness("other").engine, pods.start("other")), REQUESTS, SAMPLING, 1, 0)
    prefix, direct = pods.url.removeprefix("s3://replies/"), client(s3)
    others = [f"{prefix}/data.parquet", f"{prefix}/rlhi-replies-of-mine/x", f"{prefix}2/rlhi-replies/x"]
    for name in others:
        direct.put_object(Bucket="replies", Key=name, Body=b"mine")
    assert delete(pods.url)
    assert pods.names() == ["data.parquet", "rlhi-replies-of-mine/x"]
    assert pods.names("2") == ["rlhi-replies/x"]
    assert not delete(pods.url)
    assert pods.ask(again := Witness()) == EXPECTED
    assert len(again.asked) == 10


@pytest.mark.slow
def test_erased_are_the_versions_too_where_a_bucket_keeps_them(
    s3: str, pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct, name = client(s3), f"v{uuid.uuid4().hex}"
    direct.create_bucket(Bucket=name)
    direct.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    pods.url = f"s3://{name}/x"
    pods.ask(Witness())
    assert direct.list_object_versions(Bucket=name)["Versions"]
    assert delete(pods.url)
    left = direct.list_object_versions(Bucket=name)
    assert not left.get("Versions")
    assert not left.get("DeleteMarkers")

import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest
from rlhi.cli import main
from rlhi.config import EngineConfig, ModelConfig, SamplingConfig
from rlhi.engine import Reply, Request, choose, generate, open_engine, with_store
from rlhi.engine import store as stores
from rlhi.engine.scripted import ScriptedEngine
from rlhi.engine.store import Store
from rlhi.engine.stored import StoredEngine
from rlhi.errors import InputError
from rlhi.records import Message
from tests.rows import messages

SAMPLING = SamplingConfig(max_tokens=12)
REQUESTS = [Request(f"r{i}", messages(f"Question {i}?")) for i in range(5)]


class Witness:
    """A scripted engine that remembers what it was asked, and stops after ``most`` answers."""

    def __init__(self, identity: str = "witness", most: int | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self.most = most
        self.engine = ScriptedEngine(lambda request, number: f"{request.key} {number}", 4096, identity, self._hear)

    def _hear(self, key: str, number: int) -> None:
        if self.most is not None and len(self.asked) >= self.most:
            raise KeyboardInterrupt
        self.asked.append((key, number))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replies.sqlite"


def ask(
    path: Path, witness: Witness, requests: Sequence[Request] = REQUESTS, n: int = 2, seed: int = 0
) -> list[list[str]]:
    """What a new process would get."""
    found = generate(StoredEngine(witness.engine, Store(path)), requests, SAMPLING, n, seed)
    return [[reply.text for reply in group] for group in found]


def look(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


EXPECTED = [[f"r{i} {number}" for number in range(2)] for i in range(5)]


def test_repeated_run_asks_nothing(path: Path) -> None:
    first, again = Witness(), Witness()
    assert ask(path, first) == EXPECTED
    assert len(first.asked) == 10
    assert ask(path, again) == EXPECTED
    assert again.asked == []


def test_more_samples_ask_for_the_further_ones_only(path: Path) -> None:
    ask(path, Witness())
    more = Witness()
    ask(path, more, n=3)
    assert more.asked == [(f"r{i}", 2) for i in range(5)]


def test_stopped_run_goes_on_where_it_was(path: Path) -> None:
    stopped, rest = Witness(most=3), Witness()
    with pytest.raises(KeyboardInterrupt):
        ask(path, stopped)
    assert ask(path, rest) == EXPECTED
    assert sorted(stopped.asked + rest.asked) == [(f"r{i}", number) for i in range(5) for number in range(2)]


def test_reply_comes_back_as_it_was(path: Path) -> None:
    odd = 'a "quoted"\n\x00 half \ud83d of a pair, \U0001f600 {braces} '
    engine = ScriptedEngine(lambda *_: odd)
    sampling = replace(SAMPLING, max_tokens=3)
    first = generate(StoredEngine(engine, Store(path)), REQUESTS, sampling, 1, 0)
    assert first == generate(engine, REQUESTS, sampling, 1, 0)
    assert generate(StoredEngine(Witness("scripted", most=0).engine, Store(path)), REQUESTS, sampling, 1, 0) == first


@pytest.mark.parametrize("logprob", [None, -0.1, 1 / 3, -1e300, float("-inf")])
def test_log_probabilities_keep_every_bit(path: Path, logprob: float | None) -> None:
    class Constant(ScriptedEngine):
        def stream(
            self, requests: Sequence[Request], sampling: SamplingConfig, samples: Sequence[Sequence[int]], seed: int
        ) -> Iterator[tuple[int, int, Reply]]:
            yield 0, 0, Reply("x", "stop", logprob)

    first = generate(StoredEngine(Constant(lambda *_: ""), Store(path)), REQUESTS[:1], SAMPLING, 1, 0)
    again = generate(StoredEngine(Witness("scripted").engine, Store(path)), REQUESTS[:1], SAMPLING, 1, 0)
    assert again == first == [[Reply("x", "stop", logprob)]]


CHANGES: dict[str, Callable[[Request], Request]] = {
    "key": lambda request: replace(request, key="other"),
    "content": lambda request: replace(request, messages=messages("Other?")),
    "role": lambda request: replace(request, messages=(Message("system", "Question 0?"),)),
    "one more": lambda request: replace(request, messages=messages("Question 0?", "")),
    "persona": lambda request: replace(request, persona="- short"),
    "empty persona": lambda request: replace(request, persona=""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_request_is_asked(path: Path, change: Callable[[Request], Request]) -> None:
    ask(path, Witness(), REQUESTS[:1], 1)
    witness = Witness()
    ask(path, witness, [change(REQUESTS[0])], 1)
    assert len(witness.asked) == 1


@pytest.mark.parametrize("setting", ["temperature", "top_p", "max_tokens"])
def test_changed_sampling_is_asked(path: Path, setting: str) -> None:
    ask(path, Witness(), REQUESTS[:1], 1)
    witness = Witness()
    changed = replace(SAMPLING, **{setting: getattr(SAMPLING, setting) / 2})
    generate(StoredEngine(witness.engine, Store(path)), REQUESTS[:1], changed, 1, 0)
    assert len(witness.asked) == 1


def test_changed_seed_and_model_are_asked(path: Path) -> None:
    ask(path, Witness(), REQUESTS[:1], 1)
    seed, model = Witness(), Witness("other model")
    ask(path, seed, REQUESTS[:1], 1, seed=1)
    ask(path, model, REQUESTS[:1], 1)
    assert len(seed.asked) == len(model.asked) == 1


def test_requests_that_are_the_same_in_one_call_are_asked_once(path: Path) -> None:
    witness = Witness()
    assert ask(path, witness, [REQUESTS[0], REQUESTS[1], REQUESTS[0]], 1) == [["r0 0"], ["r1 0"], ["r0 0"]]
    assert witness.asked == [("r0", 0), ("r1", 0)]


def test_choices_are_kept_by_what_is_chosen_from(path: Path) -> None:
    first, again, other = Witness(), Witness(), Witness()
    choices = ["r0 0", "r1 0"]
    expected = [[0.0, -1.0], [-1.0, 0.0], [-1.0, -1.0], [-1.0, -1.0], [-1.0, -1.0]]
    assert choose(StoredEngine(first.engine, Store(path)), REQUESTS, choices) == expected
    assert choose(StoredEngine(again.engine, Store(path)), REQUESTS[::-1], choices) == expected[::-1]
    assert (len(first.asked), again.asked) == (5, [])
    choose(StoredEngine(other.engine, Store(path)), REQUESTS, choices[::-1])
    assert len(other.asked) == 5


def test_choices_are_kept_as_they_come(path: Path) -> None:
    requests = [Request(f"r{i}", messages(f"{'word ' * (i % 7)}{i}?")) for i in range(200)]
    stopped, rest = Witness(most=150), Witness()
    with pytest.raises(KeyboardInterrupt):
        choose(StoredEngine(stopped.engine, Store(path)), requests, ["a", "b"])
    choose(StoredEngine(rest.engine, Store(path)), requests, ["a", "b"])
    assert rest.asked == [(request.key, 0) for request in requests[150:]]


def test_engine_that_leaves_out_an_answer_is_a_defect(path: Path) -> None:
    class Lazy(ScriptedEngine):
        def stream(
            self, requests: Sequence[Request], sampling: SamplingConfig, samples: Sequence[Sequence[int]], seed: int
        ) -> Iterator[tuple[int, int, Reply]]:
            yield from list(super().stream(requests, sampling, samples, seed))[1:]

    with pytest.raises(RuntimeError, match="did not answer all"):
        generate(StoredEngine(Lazy(lambda *_: "x"), Store(path)), REQUESTS, SAMPLING, 1, 0)


def test_two_workers_share_the_work_and_no_question(path: Path) -> None:
    """Each begins with other requests; what both need is asked by whoever claimed it."""
    mine, theirs = Witness(), Witness()
    ready, told = threading.Event(), threading.Event()

    def hear(key: str, number: int) -> None:
        theirs.asked.append((key, number))
        ready.set()
        told.wait(5)

    def work() -> None:
        engine = ScriptedEngine(lambda request, number: f"{request.key} {number}", 4096, "witness", hear)
        generate(StoredEngine(engine, Store(path)), REQUESTS[2:], SAMPLING, 1, 0)

    other = threading.Thread(target=work)
    other.start()
    assert ready.wait(5)
    threading.Timer(0.3, told.set).start()
    assert ask(path, mine, n=1) == [[f"r{i} 0"] for i in range(5)]
    other.join()
    assert mine.asked == [("r0", 0), ("r1", 0)]
    assert theirs.asked == [("r2", 0), ("r3", 0), ("r4", 0)]


def test_claims_of_a_process_that_lives_stay(path: Path) -> None:
    claim_of(path, socket.gethostname(), os.getppid(), 1000)
    with Store(path).claim([key for (key,) in look(path, "SELECT key FROM claims")]) as mine:
        assert mine == []


def claim_of(path: Path, host: str, pid: int, seconds: float) -> None:
    """Claims what `REQUESTS` need, and leaves it as a process does that was killed."""
    ask(path, Witness(), n=1)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO workers VALUES (99, ?, ?, 'then', ?)", (host, pid, time.time() + seconds))
        db.execute("INSERT INTO claims SELECT key, 99 FROM replies")
        db.execute("DELETE FROM replies")


def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("pid", ["another", "the same, in a container that starts again"])
def test_claims_of_a_process_that_died_here_are_free_at_once(path: Path, pid: str) -> None:
    claim_of(path, socket.gethostname(), dead() if pid == "another" else os.getpid(), 1000)
    witness = Witness()
    ask(path, witness, n=1)
    assert len(witness.asked) == 5


def test_claims_of_another_host_are_free_when_their_lease_has_run_out(path: Path) -> None:
    claim_of(path, "elsewhere", os.getpid(), 1000)
    with Store(path).claim([key for (key,) in look(path, "SELECT key FROM claims")]) as mine:
        assert mine == []
    claim_of(path.with_name("later"), "elsewhere", os.getpid(), -1)
    witness = Witness()
    ask(path.with_name("later"), witness, n=1)
    assert len(witness.asked) == 5


def test_claims_are_renewed_while_a_worker_is_slow(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LEASE", 0.3)
    store, other = Store(path), Store(path)
    with store.claim([b"a"]):
        threading.Event().wait(0.8)
        with other.claim([b"a", b"b"]) as free:
            assert free == [b"b"]
    with other.claim([b"a"]) as free:
        assert free == [b"a"]


def test_claims_end_with_an_error(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(path, Witness(most=1))
    assert look(path, "SELECT count(*) FROM claims") == [(0,)]
    assert look(path, "SELECT count(*) FROM workers") == [(0,)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(
            b"no database, but long enough to be looked at " * 40, "is no store of replies, or broken", id="text"
        ),
        pytest.param("CREATE TABLE own (x)", "is a database, but no store of replies", id="another's"),
        pytest.param("PRAGMA application_id = 1919707241; PRAGMA user_version = 0", "has layout 0", id="older layout"),
        pytest.param("PRAGMA application_id = 1919707241; PRAGMA user_version = 2", "has layout 2", id="newer layout"),
    ],
)
def test_file_that_is_no_store_is_refused_and_left_as_it_is(path: Path, content: bytes | str, says: str) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        db = sqlite3.connect(path)
        db.executescript(content)
        db.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match=rf"{path}: {says}.*RLHI_REPLIES") as caught:
        Store(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    assert ask(path, Witness()) == EXPECTED


def test_store_with_broken_bytes_is_told_or_gives_what_was_stored(path: Path) -> None:
    requests = [Request(f"r{i}", messages(f"{i} {'word ' * 50}")) for i in range(300)]
    expected = ask(path, Witness(), requests, 1)
    look(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    whole, draw, told = path.read_bytes(), random.Random(0), 0
    assert len(whole) > 40_000
    for _ in range(30):
        broken = bytearray(whole)
        start = draw.randrange(len(whole) - 4096)
        broken[start : start + 4096] = draw.randbytes(4096)
        path.write_bytes(broken)
        try:
            assert ask(path, Witness(), requests, 1) == expected
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017
            told += 1
        for each in path.parent.glob("replies.sqlite-*"):
            each.unlink()
    assert told > 10


@pytest.mark.parametrize("place", ["/proc/replies.sqlite", "/dev/null/replies.sqlite", "."])
def test_place_that_cannot_be_written_is_told(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputError, match=r"cannot be (written|stored).*RLHI_REPLIES"):
        Store(tmp_path / place)


FULL = """
import resource, sys
from pathlib import Path
from tests.test_store import REQUESTS, Witness, ask
from rlhi.engine import Request
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    ask(Path(sys.argv[1]), Witness(), [Request(f"r{i}", REQUESTS[0].messages) for i in range(3000)], 1)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_full_disk_is_told_and_loses_nothing(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"InputError {path}: replies cannot be stored there"), done.stdout + done.stderr
    requests = [Request(f"r{i}", REQUESTS[0].messages) for i in range(3000)]
    rest = Witness()
    assert ask(path, rest, requests, 1) == [[f"r{i} 0"] for i in range(3000)]
    assert 0 < len(rest.asked) < 2999
    assert look(path, "PRAGMA integrity_check") == [("ok",)]


MANY = """
import sys
from pathlib import Path
from tests.test_store import Witness, ask
from rlhi.engine import Request
from tests.rows import messages
path, number = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
ask(path, Witness(), [Request(f"{number} {i}", messages("Hi.")) for i in range(200)], 1)
"""


def test_processes_that_open_and_write_at_once_wait_for_each_other(path: Path) -> None:
    command = [sys.executable, "-c", MANY, str(path)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    workers = [subprocess.Popen([*command, str(i)], **pipes, text=True) for i in range(4)]
    outs: list[Any] = [worker.stdout for worker in workers]
    assert [out.readline() for out in outs] == ["ready\n"] * 4
    ins: list[Any] = [worker.stdin for worker in workers]
    for each in ins:
        each.write("\n")
        each.flush()
    for worker in workers:
        _, said = worker.communicate(timeout=60)
        assert worker.returncode == 0, said
    assert look(path, "SELECT count(*) FROM replies") == [(800,)]


def test_store_is_used_where_it_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.json"
    script.write_text("[]")
    config = EngineConfig(kind="scripted", script=str(script))
    assert isinstance(open_engine(config), ScriptedEngine)
    monkeypatch.setenv("RLHI_STORE", str(tmp_path / "store"))
    assert isinstance(open_engine(config), StoredEngine)
    assert (tmp_path / "store" / "replies.sqlite").exists()
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "own.sqlite"))
    open_engine(config)
    assert (tmp_path / "own.sqlite").exists()


def test_scripts_that_say_other_things_share_no_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    script = tmp_path / "script.json"
    for said in ("yes", "no"):
        script.write_text(json.dumps([{"contains": "", "reply": said}]))
        engine = open_engine(EngineConfig(kind="scripted", script=str(script)))
        assert generate(engine, REQUESTS[:1], SAMPLING, 1, 0)[0][0].text == said


def test_weights_and_role_are_part_of_the_identity_and_the_path_is_not(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    usual = ModelConfig(id=str(folder))
    found = {
        open_engine(EngineConfig(model=model)).identity for model in (usual, replace(usual, persona_role="user"), usual)
    }
    assert len(found) == 2
    moved = replace(usual, id=str(folder.rename(tmp_path / "moved")))
    assert open_engine(EngineConfig(model=moved)).identity in found
    (tmp_path / "moved" / "generation_config.json").write_text("{}")
    assert open_engine(EngineConfig(model=moved)).identity not in found


def test_resumed_model_says_what_it_would_have_said(tiny_model: Path, path: Path) -> None:
    """Other batches, the same texts; log-probabilities as near as float32 takes them."""
    engine = open_engine(EngineConfig(model=ModelConfig(id=str(tiny_model)), batch_size=16))
    said = [f"{'word ' * (i % 9)}{i}?" for i in range(40)]
    requests = [Request(f"r{i}", messages(text), "- short" if i % 2 else None) for i, text in enumerate(said)]
    expected = generate(engine, requests, SAMPLING, 3, 0)
    draw = random.Random(0)
    for _ in range(4):  # earlier runs that got so far
        some = [[number for number in range(3) if draw.random() < 0.2] for _ in requests]
        list(StoredEngine(engine, Store(path)).stream(requests, SAMPLING, some, 0))
    found = generate(StoredEngine(engine, Store(path)), requests, SAMPLING, 3, 0)
    for own, wanted in zip(found, expected, strict=True):
        assert [(reply.text, reply.finish_reason) for reply in own] == [
            (reply.text, reply.finish_reason) for reply in wanted
        ]
        assert [reply.logprob for reply in own] == pytest.approx([reply.logprob for reply in wanted], abs=1e-4)


def test_replies_are_counted_in_the_manifest_and_not_in_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.test_ingest import users, write

    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"contains": "", "reply": "- short"}]))
    source = write(tmp_path / "logs.jsonl", *users(2, 3, 4))
    config = json.dumps({"min_conversations": 1, "eval_share": 0})
    assert main(["ingest", "--source", source, "--conversations", str(tmp_path / "in"), "--config", config]) == 0
    made = []
    for name in ("first", "again"):
        config = json.dumps({"engine": {"kind": "scripted", "script": str(script)}})
        argv = ["persona", "--conversations", str(tmp_path / "in"), "--personas", str(tmp_path / name)]
        assert main([*argv, "--config", config]) == 0
        made.append(manifest.load(tmp_path / name))
    counts = [[each.metrics[f"replies/{name}"] for name in ("asked", "stored")] for each in made]
    assert counts == [[3, 0], [0, 3]]
    assert made[0].digest == made[1].digest


def test_engine_without_a_store_is_itself() -> None:
    engine = Witness().engine
    assert with_store(engine) is engine

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from botocore.exceptions import ClientError
from safetensors.torch import load_file

from rlhi.dpo.checkpoints import Checkpoints
from rlhi.engine.s3 import bucket, files
from rlhi.engine.s3.files import Files
from rlhi.errors import InputError
from tests.checkpoint_job import HISTORY, STEPS, WEIGHTS, Job
from tests.s3_server import Fault, Proxy, client, use

EVENTS = ("on_step_begin", "on_substep_end", "on_pre_optimizer_step", "on_step_end", "on_log", "on_save")
PART = 5 << 20  # the least that S3 takes
SPEED = ("runtime", "per_second", "train_loss", "flos")  # of one process, in no history of ours


@pytest.fixture(scope="module")
def proxy(s3: str) -> Iterator[Proxy]:
    with suppress(ClientError):  # it is there
        client(s3).create_bucket(Bucket="checkpoints")
    with Proxy(s3) as made:
        yield made


@pytest.fixture
def remote(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place on S3, behind the proxy."""
    use(proxy.url, monkeypatch)
    monkeypatch.setattr(bucket, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(bucket, "LONGEST_WAIT", 0.05)
    proxy.fault = lambda method, path: None
    return f"s3://checkpoints/{tmp_path.name}"


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path) -> Job:
    """A training with its checkpoints in a folder."""
    return Job(tiny_model, str(tmp_path / "place"), tmp_path / "disk", tmp_path / "out")


def on_s3(job: Job, remote: str) -> Job:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")
    return replace(job, place=remote, environment={name: os.environ[name] for name in names})


Result = tuple[dict[str, torch.Tensor], list[dict[str, float]]]


def result(out: Path) -> Result:
    rows = json.loads((out / HISTORY).read_text())
    history = [{key: value for key, value in row.items() if not key.endswith(SPEED)} for row in rows]
    return load_file(out / WEIGHTS), [row for row in history if {"loss", "eval_loss"} & set(row)]


def same(made: Result, expected: Result) -> None:
    assert made[1] == expected[1]
    assert made[0].keys() == expected[0].keys()
    assert all(torch.equal(value, expected[0][name]) for name, value in made[0].items())


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert Job(tiny_model, str(folder / "place"), folder, folder / "out").finish() == 0
    return result(folder / "out")


def kill_and_finish(job: Job, seed: int, between: Callable[[], None] = lambda: None) -> None:
    """Starts the job until it ends: three times it is killed at a step and an event drawn at random."""
    draw = random.Random(seed)
    for step in sorted(draw.sample(range(STEPS), 3)):
        events = [event for event in EVENTS if event != "on_save" or (step and step % 3 == 0)]
        events = events[:1] + events[2:] if step % 5 == 4 else events  # the last step of an epoch has one batch only
        assert replace(job, dies=(step, draw.choice(events), signal.SIGKILL)).finish() == -signal.SIGKILL
        between()
    assert job.finish() == 0


def test_history_of_an_undisturbed_training_has_every_step_once(undisturbed: Result) -> None:
    assert [row["step"] for row in undisturbed[1] if "loss" in row] == list(range(1, STEPS + 1))
    assert [row["step"] for row in undisturbed[1] if "eval_loss" in row] == [3, 6, 9, 12]


def test_killed_training_ends_in_the_same_weights_and_history(job: Job, undisturbed: Result) -> None:
    kill_and_finish(job, 1)
    same(result(job.out), undisturbed)


def test_training_goes_on_from_s3_when_the_disk_is_lost(job: Job, remote: str, undisturbed: Result) -> None:
    job = on_s3(job, remote)
    assert replace(job, dies=(8, "on_log", signal.SIGKILL)).finish() == -signal.SIGKILL
    shutil.rmtree(job.scratch)
    assert job.finish() == 0
    same(result(job.out), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "lost"), [(0, "disk"), (1, "nothing"), (2, "disk"), (3, "nothing")])
def test_training_killed_anywhere_ends_the_same(
    job: Job, remote: str, proxy: Proxy, undisturbed: Result, seed: int, lost: str
) -> None:
    draw = random.Random(seed)
    proxy.fault = lambda method, path: "503" if draw.random() < 0.2 else None
    job = on_s3(job, remote)
    kill_and_finish(job, seed, lambda: shutil.rmtree(job.scratch if lost == "disk" else job.scratch / "nothing", True))
    same(result(job.out), undisturbed)


@pytest.mark.slow
def test_training_of_all_weights_ends_the_same(job: Job, tmp_path: Path) -> None:
    job = replace(job, lora=False)
    assert replace(job, out=tmp_path / "first", place=str(tmp_path / "other")).finish() == 0
    kill_and_finish(job, 2)
    same(result(job.out), result(tmp_path / "first"))


def test_kill_during_an_upload_leaves_the_checkpoint_before(
    job: Job, remote: str, proxy: Proxy, undisturbed: Result
) -> None:
    started = on_s3(job, remote).start()

    def fault(method: str, path: str) -> Fault | None:
        if method == "PUT" and "checkpoint-6/optimizer" in path:
            assert started.pid is not None
            os.kill(started.pid, signal.SIGKILL)
            return "drop"
        return None

    proxy.fault = fault
    started.join(120)
    proxy.fault = lambda method, path: None
    assert started.exitcode == -signal.SIGKILL
    assert Files(remote).names("dpo-one/checkpoint-6/")
    shutil.rmtree(job.scratch)
    found = Checkpoints(remote, "one", job.scratch).restore()
    assert found is not None
    assert found.name == "checkpoint-3"
    assert Files(remote).names("dpo-one/checkpoint-6/") == []

    assert on_s3(job, remote).finish() == 0
    same(result(job.out), undisturbed)


@pytest.mark.slow
def test_checkpoint_that_trainer_had_half_written_is_passed_over(job: Job, undisturbed: Result) -> None:
    started, folder = job.start(), Path(job.place) / "dpo-one" / "checkpoint-6"
    while started.is_alive() and not folder.exists():
        pass
    started.kill()
    started.join()
    (folder / "listing-0.json").unlink(missing_ok=True)  # where this machine was too fast for us
    assert job.finish() == 0
    same(result(job.out), undisturbed)


def test_sigterm_saves_the_step_that_is_under_way(job: Job, remote: str, undisturbed: Result) -> None:
    job = on_s3(job, remote)
    assert replace(job, dies=(6, "on_substep_end", signal.SIGTERM)).finish() == -signal.SIGTERM
    assert "dpo-one/checkpoint-7/listing-0.json" in Files(remote).names("")
    shutil.rmtree(job.scratch)
    assert job.finish() == 0
    same(result(job.out), undisturbed)


@pytest.mark.slow
def test_sigterm_in_the_last_step_ends_the_process_too(job: Job, undisturbed: Result) -> None:
    assert replace(job, dies=(STEPS - 1, "on_substep_end", signal.SIGTERM)).finish() == -signal.SIGTERM
    assert job.finish() == 0
    same(result(job.out), undisturbed)


@pytest.mark.slow
def test_early_stopping_and_the_best_model_are_the_same(job: Job, tmp_path: Path, remote: str) -> None:
    best = {"metric_for_best_model": "eval_loss", "load_best_model_at_end": True, "eval_steps": 1, "save_steps": 1}
    job = replace(on_s3(job, remote), patience=3, settings=best)
    expected = tmp_path / "first"
    assert replace(job, out=expected, place=f"{remote}/other", scratch=tmp_path / "other").finish() == 0
    steps = [row["step"] for row in result(expected)[1] if "loss" in row]
    assert 3 < len(steps) < STEPS  # it does stop early

    assert replace(job, dies=(len(steps) - 1, "on_step_begin", signal.SIGKILL)).finish() == -signal.SIGKILL
    shutil.rmtree(job.scratch)
    assert replace(job, scratch=tmp_path / "moved").finish() == 0
    same(result(job.out), result(expected))


class Nodes:
    """A training by two processes, each a node with a disk of its own."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def finish(self, dies: tuple[int, str, signal.Signals] | None = None) -> list[int | None]:
        """``dies`` is told to the second only; a killed one takes the other with it, as torchrun does."""
        port = str(random.randrange(20_000, 30_000))
        started = [self._rank(rank, port, dies if rank else None).start() for rank in (0, 1)]
        started[1].join(120)
        if started[1].exitcode:
            started[0].join(2)
            started[0].kill()
        started[0].join(120)
        return [each.exitcode for each in started]

    def _rank(self, rank: int, port: str, dies: tuple[int, str, signal.Signals] | None) -> Job:
        torchrun = {"RANK": rank, "GROUP_RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "GROUP_WORLD_SIZE": 2}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": "1"}
        environment = {**self.job.environment, **{name: str(value) for name, value in torchrun.items()}, **where}
        scratch = self.job.scratch / str(rank)
        return replace(self.job, environment=environment, scratch=scratch, dies=dies)


@pytest.mark.slow
def test_two_nodes_go_on_from_what_both_have_sent(job: Job, remote: str, tmp_path: Path) -> None:
    job = replace(on_s3(job, remote), settings={"gradient_accumulation_steps": 1})
    expected = tmp_path / "first"
    assert Nodes(replace(job, out=expected, place=f"{remote}/other", scratch=tmp_path / "other")).finish() == [0, 0]

    nodes = Nodes(job)
    assert nodes.finish((7, "on_step_begin", signal.SIGKILL))[1] == -signal.SIGKILL
    names = Files(remote).names("dpo-one/")
    assert {f"dpo-one/checkpoint-3/{name}" for name in ("listing-0.json", "listing-1.json")} <= set(names)
    assert {f"dpo-one/checkpoint-3/rng_state_{rank}.pth" for rank in (0, 1)} <= set(names)
    shutil.rmtree(job.scratch)
    assert nodes.finish((9, "on_step_begin", signal.SIGTERM)) == [-signal.SIGTERM] * 2
    assert "dpo-one/checkpoint-10/listing-1.json" in Files(remote).names("dpo-one/")
    assert nodes.finish() == [0, 0]
    same(result(job.out), result(expected))


# without a training


class Written:
    """Writes checkpoints as Trainer would."""

    def __init__(self, place: str, scratch: Path, fingerprint: str = "one") -> None:
        self.place, self.scratch, self.fingerprint = place, scratch, fingerprint

    def start(self) -> Checkpoints:
        return Checkpoints(self.place, self.fingerprint, self.scratch)

    def keep(self, *steps: int, best: int | None = None) -> Checkpoints:
        checkpoints = self.start()
        for step in steps:
            self.write(checkpoints, step, best)
            checkpoints.keep(step, best)
        checkpoints.flush()
        return checkpoints

    def write(self, checkpoints: Checkpoints, step: int, best: int | None = None) -> None:
        folder = checkpoints.folder / f"checkpoint-{step}"
        (folder / "shards").mkdir(parents=True)
        (folder / "shards" / "model.bin").write_bytes(bytes([step]) * 1000)
        (folder / "empty").write_bytes(b"")
        (folder / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))

    def restored(self) -> str | None:
        found = self.start().restore()
        if found is None:
            return None
        step = int(found.name.removeprefix("checkpoint-"))
        assert (found / "shards" / "model.bin").read_bytes() == bytes([step]) * 1000
        assert (found / "empty").read_bytes() == b""
        return found.name


@pytest.fixture(params=["folder", "s3"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Written:
    place = str(tmp_path / "place") if request.param == "folder" else request.getfixturevalue("remote")
    return Written(place, tmp_path / "disk")


def kept(written: Written) -> set[str]:
    if written.place.startswith("s3://"):
        return {name.split("/")[1] for name in Files(written.place).names("dpo-one/")}
    return {path.name for path in (Path(written.place) / "dpo-one").iterdir()}


def test_newest_two_and_the_best_stay(written: Written) -> None:
    written.keep(1, 2, 3, 4, 5, best=2)
    assert kept(written) == {"checkpoint-2", "checkpoint-4", "checkpoint-5"}
    assert {path.name for path in written.start().folder.iterdir()} == kept(written)


def test_nothing_there_is_nothing_to_go_on_from(written: Written) -> None:
    assert written.restored() is None


def test_newest_whole_one_is_restored_and_what_is_newer_deleted(written: Written) -> None:
    written.write(written.keep(9, 10), 11)
    assert written.restored() == "checkpoint-10"
    assert kept(written) == {"checkpoint-9", "checkpoint-10"}
    assert {path.name for path in written.start().folder.iterdir()} == kept(written)


@pytest.mark.parametrize("name", ["shards/model.bin", "trainer_state.json", "listing-0.json"])
@pytest.mark.parametrize("body", [b"x", None])
def test_damaged_one_is_passed_over(tmp_path: Path, name: str, body: bytes | None) -> None:
    written = Written(str(tmp_path / "place"), tmp_path / "disk")
    path = written.keep(1, 2).folder / "checkpoint-2" / name
    path.unlink() if body is None else path.write_bytes(body)
    assert written.restored() == "checkpoint-1"


@pytest.mark.parametrize("name", ["shards/model.bin", "listing-0.json"])
@pytest.mark.parametrize("body", [b"x", b"x" * 1000, None])
def test_damaged_one_on_s3_is_passed_over(tmp_path: Path, remote: str, name: str, body: bytes | None) -> None:
    written = Written(remote, tmp_path / "disk")
    shutil.rmtree(written.keep(1, 2).folder)
    there = Files(f"{remote}/dpo-one/checkpoint-2")
    there.delete([name]) if body is None else there.put(name, body)
    assert written.restored() == "checkpoint-1"


def test_one_that_is_damaged_on_the_disk_is_fetched_again(tmp_path: Path, remote: str) -> None:
    written = Written(remote, tmp_path / "disk")
    (written.keep(1, 2).folder / "checkpoint-2" / "shards" / "model.bin").write_bytes(b"x")
    assert written.restored() == "checkpoint-2"


def test_disk_that_is_ahead_of_s3_is_used(tmp_path: Path, remote: str) -> None:
    written = Written(remote, tmp_path / "disk")
    written.keep(1, 2)
    Files(f"{remote}/dpo-one").delete(["checkpoint-2/listing-0.json"])
    assert written.restored() == "checkpoint-2"


def test_best_one_comes_back_with_the_newest(tmp_path: Path, remote: str) -> None:
    written = Written(remote, tmp_path / "disk")
    folder = written.keep(1, 2, 3, 4, best=1).folder
    shutil.rmtree(folder)
    assert written.restored() == "checkpoint-4"
    assert {path.name for path in folder.iterdir()} == {"checkpoint-1", "checkpoint-4"}


def test_checkpoint_of_another_training_is_refused(written: Written, tmp_path: Path) -> None:
    written.keep(1)
    if written.place.startswith("s3://"):
        there = Files(written.place)
        for name in there.names("dpo-one/"):
            there.put(name.replace("dpo-one", "dpo-two"), there.get(name).body or b"")
    else:
        shutil.copytree(written.start().folder, Path(written.place) / "dpo-two")
    other = Written(written.place, written.scratch, "two")
    with pytest.raises(
        InputError, match=r"checkpoint-1: is a checkpoint of training one, this is two; remove it, or set"
    ):
        other.start().restore()


def test_trainings_do_not_see_each_other(written: Written) -> None:
    written.keep(1)
    assert Written(written.place, written.scratch, "two").restored() is None
    assert written.restored() == "checkpoint-1"


def test_nothing_is_left_when_they_have_served(written: Written) -> None:
    checkpoints = written.keep(1, 2)
    checkpoints.remove()
    assert written.restored() is None
    assert not checkpoints.folder.exists()


def test_unknown_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"RLHI_CHECKPOINTS=gs://mine: unknown scheme; give a folder or s3://"):
        Checkpoints("gs://mine", "one", tmp_path)


def test_bucket_that_is_not_there_is_refused_before_the_training(tmp_path: Path, remote: str) -> None:
    with pytest.raises(InputError, match=r"s3://nowhere/x/dpo-one: .*NoSuchBucket.*look at the bucket"):
        Checkpoints("s3://nowhere/x", "one", tmp_path).restore()


def test_server_that_is_busy_for_a_while_is_waited_for(tmp_path: Path, remote: str, proxy: Proxy) -> None:
    draw = random.Random(0)
    faults: list[Fault | None] = ["503", "drop", "lose the answer", None]
    proxy.fault = lambda method, path: draw.choice(faults)
    written = Written(remote, tmp_path / "disk")
    shutil.rmtree(written.keep(1, 2).folder)
    assert written.restored() == "checkpoint-2"


def test_training_goes_on_without_a_server_that_stays_away(
    tmp_path: Path, remote: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PATIENCE", 0.2)
    written = Written(remote, tmp_path / "disk")
    checkpoints = written.keep(1)
    proxy.fault = lambda method, path: "503"
    written.write(checkpoints, 2)
    checkpoints.keep(2, None)
    checkpoints.flush()
    proxy.fault = lambda method, path: None
    written.write(checkpoints, 3)
    checkpoints.keep(3, None)
    checkpoints.flush()
    shutil.rmtree(checkpoints.folder)
    assert written.restored() == "checkpoint-3"


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 2 * PART + 99])
def test_file_of_any_size_comes_back_as_it_was(
    tmp_path: Path, remote: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(files, "PART", PART)
    draw = random.Random(size)
    faults: list[Fault | None] = ["503", "drop", "lose the answer", None, None, None]
    proxy.fault = lambda method, path: draw.choice(faults)
    path = tmp_path / "file"
    path.write_bytes(draw.randbytes(size))
    there = Files(remote)
    there.upload("a/file", path)
    assert there.sizes("a/") == {"a/file": size}
    there.download("a/file", tmp_path / "back", size)
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_upload_that_was_never_ended_is_freed(tmp_path: Path, remote: str, s3: str) -> None:
    def left() -> list[Any]:
        found = client(s3).list_multipart_uploads(Bucket="checkpoints", Prefix=remote.removeprefix("s3://checkpoints/"))
        return list(found.get("Uploads", []))

    key = f"{remote.removeprefix('s3://checkpoints/')}/dpo-one/checkpoint-2/model"
    started = client(s3).create_multipart_upload(Bucket="checkpoints", Key=key)
    client(s3).upload_part(Bucket="checkpoints", Key=key, UploadId=started["UploadId"], PartNumber=1, Body=b"x")
    assert len(left()) == 1
    Checkpoints(remote, "one", tmp_path).restore()
    assert left() == []

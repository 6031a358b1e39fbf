"""Stages that are killed again and again: the output of an undisturbed run, and nothing asked for twice."""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rlhi import manifest
from rlhi.cli import main
from rlhi.engine.s3 import parts as s3_parts
from rlhi.engine.s3 import store as s3_store
from rlhi.engine.s3.bucket import Bucket
from tests.forks import FORKS, settle
from tests.s3_server import client, use
from tests.test_ingest import spoken, write

ROWS = 200
KILLS = 20
KILLS_OF_PODS = 8
DELAY = 0.003  # seconds a reply takes
EVERY, SENT = 0.25, 10  # seconds, or replies, after which a stage sends what it has to S3


@dataclass(frozen=True)
class Stage:
    """How a stage is called, and what its model says. One answer is under way when it is killed."""

    name: str
    output: str
    inputs: tuple[str, ...]
    config: dict[str, Any]
    reply: str = "- short\n- answer {n} of a fig"

    def argv(self, folder: Path, out: Path, script: Path) -> list[str]:
        config = {"engine": {"kind": "scripted", "script": str(script)}} | self.config
        places = [part for name in self.inputs for part in (f"--{name}", str(folder / name))]
        return [self.name, *places, f"--{self.output}", str(out), "--config", json.dumps(config)]


TALKS, TURNS, PERSONAS = "conversations", "turns", "personas"
ANY_LABEL = {"n": 2, "labels": ["initial", "new", "re-attempt with feedback"]}
STAGES_ASKING = [
    Stage("classify", TURNS, (TALKS,), {"meaningful_feedback": False}, "[[Re-attempt with feedback]]"),
    Stage("persona", PERSONAS, (TALKS,), {}),
    Stage("reconstruct", "reconstructed", (TALKS, TURNS), {"only_before_feedback": True}),
    Stage("rewrite", "rewrites", (TALKS, TURNS, PERSONAS), {}),
    Stage("sample", "samples", (TALKS, TURNS, PERSONAS), ANY_LABEL),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of every stage, from 200 users with a conversation each."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = [spoken(f"c{i}", f"Fruit {i}?", "A fig.", "Shorter.", "Fig.", user=f"u{i}") for i in range(ROWS)]
    config = json.dumps({"min_conversations": 1, "eval_share": 0})
    source = write(folder / "logs.jsonl", *rows)
    assert main(["ingest", "--source", source, "--conversations", str(folder / TALKS), "--config", config]) == 0
    for stage in STAGES_ASKING[:2]:
        script = write_script(folder / "script.json", stage)
        assert main(stage.argv(folder, folder / stage.output, script)) == 0
    return folder


def write_script(path: Path, stage: Stage, delay: float = 0, log: Path | None = None) -> Path:
    rules = [{"contains": "", "reply": stage.reply}]
    path.write_text(json.dumps({"rules": rules, "delay": delay, "log": log and str(log)}))
    return path


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def run(argv: list[str], env: dict[str, str]) -> None:
    """A process that is one start of a stage; on S3, one that sends every quarter of a second or ten replies."""
    settle(env)
    s3_parts.EVERY, s3_parts.ROWS = EVERY, SENT
    s3_store.PAUSE = 0.1
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  the bars of a hundred starts
    sys.exit(main(argv))


class Rehearsal:
    """One stage beside an undisturbed run of it."""

    def __init__(self, stage: Stage, folder: Path, place: Path) -> None:
        self.stage = stage
        self.folder = folder
        self.place = place
        self.log = place / "asked.txt"
        self.script = write_script(place / "script.json", stage, DELAY, self.log)
        calm = place / "calm"
        calm.mkdir()
        log = calm / "asked.txt"
        assert main(stage.argv(folder, calm / "out", write_script(calm / "script.json", stage, 0, log))) == 0
        self.env = {"RLHI_REPLIES": str(place / "replies.sqlite")}
        self.expected = manifest.load(calm / "out").digest
        self.asked = Counter(lines(log))

    def start(self, out: str = "out") -> ForkServerProcess:
        argv = self.stage.argv(self.folder, self.place / out, self.script)
        process = FORKS.Process(target=run, args=(argv, self.env))
        process.start()
        return process

    def kill(self, draw: random.Random) -> bool:
        """Starts the stage and kills it a little after its first new question; whether it was still running."""
        before, process = len(lines(self.log)), self.start()
        while process.is_alive() and len(lines(self.log)) == before:
            time.sleep(0.002)
        time.sleep(draw.random() * DELAY * 8)
        running = process.is_alive()
        process.kill()
        process.join()
        return running

    def terminate(self) -> int:
        """Starts the stage by its command line and tells it to stop once it has asked something; its exit code."""
        argv = self.stage.argv(self.folder, self.place / "out", self.script)
        env = {**os.environ, **self.env}
        process = subprocess.Popen([sys.executable, "-m", "rlhi.cli", *argv], env=env, stderr=subprocess.DEVNULL)
        while process.poll() is None and not lines(self.log):
            time.sleep(0.002)
        process.terminate()
        return process.wait()

    def finish(self) -> None:
        process = self.start()
        process.join()
        assert process.exitcode == 0
        assert manifest.load(self.place / "out").digest == self.expected


@pytest.fixture(params=STAGES_ASKING, ids=lambda stage: stage.name)
def rehearsal(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Rehearsal:
    return Rehearsal(request.param, folder, tmp_path)


@pytest.mark.slow
def test_stage_that_is_killed_goes_on_and_asks_only_for_what_is_missing(rehearsal: Rehearsal) -> None:
    draw = random.Random(0)
    kills = sum(rehearsal.kill(draw) for _ in range(KILLS))
    assert kills > KILLS / 2  # on a machine that is busy, it can be done before
    rehearsal.finish()
    asked = Counter(lines(rehearsal.log))
    assert asked.keys() == rehearsal.asked.keys()
    assert (asked - rehearsal.asked).total() <= kills


@pytest.mark.slow
def test_stage_that_is_told_to_stop_goes_on_in_the_same_way(rehearsal: Rehearsal) -> None:
    assert rehearsal.terminate() == 130
    with closing(sqlite3.connect(rehearsal.place / "replies.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM claims").fetchone() == (0,)
    rehearsal.finish()
    assert (Counter(lines(rehearsal.log)) - rehearsal.asked).total() <= 1


@pytest.mark.slow
def test_two_workers_ask_nothing_twice(rehearsal: Rehearsal) -> None:
    workers = [rehearsal.start(out) for out in ("out", "other")]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert {manifest.load(rehearsal.place / out).digest for out in ("out", "other")} == {rehearsal.expected}
    assert Counter(lines(rehearsal.log)) == rehearsal.asked


@pytest.fixture
def on_s3(rehearsal: Rehearsal, s3: str, monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    """A rehearsal whose stage keeps its replies on S3."""
    use(s3, monkeypatch)
    with suppress(ClientError):
        client(s3).create_bucket(Bucket="killed")
    variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    url = f"s3://killed/{uuid.uuid4().hex}"
    rehearsal.env = variables | {"RLHI_REPLIES": url, "RLHI_CACHE": str(rehearsal.place / "cache")}
    return rehearsal


@pytest.mark.slow
@pytest.mark.parametrize("rehearsal", [STAGES_ASKING[0], STAGES_ASKING[-1]], ids=["classify", "sample"], indirect=True)
def test_pod_that_is_killed_loses_what_it_had_not_sent_and_no_more(on_s3: Rehearsal) -> None:
    """As above, with an empty disk at each start."""
    draw, kills = random.Random(0), 0
    for _ in range(KILLS_OF_PODS):
        kills += on_s3.kill(draw)
        shutil.rmtree(on_s3.place / "cache", ignore_errors=True)
    assert kills > KILLS_OF_PODS / 2
    on_s3.finish()
    asked = Counter(lines(on_s3.log))
    assert asked.keys() == on_s3.asked.keys()
    unsent = SENT + EVERY / DELAY  # of a part that is on its way, and of the next
    assert (asked - on_s3.asked).total() <= kills * (1 + unsent)


@pytest.mark.slow
@pytest.mark.parametrize("rehearsal", [STAGES_ASKING[-1]], ids=["sample"], indirect=True)
def test_pod_that_is_told_to_stop_sends_all_and_gives_its_claims_back(on_s3: Rehearsal) -> None:
    assert on_s3.terminate() == 130
    assert not list((on_s3.place / "cache").rglob("*.sqlite"))
    (index,) = [name for name in Bucket(on_s3.env["RLHI_REPLIES"]).names("") if name.endswith("claims.json")]
    held = Bucket(on_s3.env["RLHI_REPLIES"]).get(index).body
    assert held is not None
    assert json.loads(held)["workers"] == {}
    on_s3.finish()
    assert (Counter(lines(on_s3.log)) - on_s3.asked).total() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("rehearsal", [STAGES_ASKING[-1]], ids=["sample"], indirect=True)
def test_two_pods_ask_nothing_twice(on_s3: Rehearsal) -> None:
    test_two_workers_ask_nothing_twice(on_s3)

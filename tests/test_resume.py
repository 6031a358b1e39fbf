"""Stages that are killed again and again: the output of an undisturbed run, and nothing asked for twice."""

import json
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest
from rlhi.cli import STAGES, main
from rlhi.engine import scripted, stored
from tests.test_ingest import spoken, write

ROWS = 200
KILLS = 20
DELAY = 0.003  # seconds a reply takes
# what the server of forks has imported: a start costs a tenth of a second then
IMPORTED = [__name__, scripted.__name__, "pyarrow.dataset", "pandas"]
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload([*IMPORTED, *(f"rlhi.{stage}.stage" for stage in STAGES if stage != "dpo")])


@dataclass(frozen=True)
class Stage:
    """How a stage is called, and how many answers can be under way when it is killed."""

    name: str
    output: str
    inputs: tuple[str, ...]
    config: dict[str, Any]
    under_way: int = 1
    reply: str = "- short\n- answer {n} of a fig"

    def argv(self, folder: Path, out: Path, script: Path) -> list[str]:
        config = {"engine": {"kind": "scripted", "script": str(script)}} | self.config
        places = [part for name in self.inputs for part in (f"--{name}", str(folder / name))]
        return [self.name, *places, f"--{self.output}", str(out), "--config", json.dumps(config)]


TALKS, TURNS, PERSONAS = "conversations", "turns", "personas"
ANY_LABEL = {"n": 2, "labels": ["initial", "new", "re-attempt with feedback"]}
EVERY = [
    Stage(
        "classify",
        TURNS,
        (TALKS,),
        {"meaningful_feedback": False},
        stored.CHOICES_AT_ONCE,
        "[[Re-attempt with feedback]]",
    ),
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
    for stage in EVERY[:2]:
        script = write_script(folder / "script.json", stage)
        assert main(stage.argv(folder, folder / stage.output, script)) == 0
    return folder


def write_script(path: Path, stage: Stage, delay: float = 0, log: Path | None = None) -> Path:
    rules = [{"contains": "", "reply": stage.reply}]
    path.write_text(json.dumps({"rules": rules, "delay": delay, "log": log and str(log)}))
    return path


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def run(argv: list[str], store: Path) -> None:
    """A process that is one start of a stage."""
    os.environ["RLHI_REPLIES"] = str(store)
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
        self.expected = manifest.load(calm / "out").digest
        self.asked = Counter(lines(log))

    def start(self, out: str = "out") -> multiprocessing.process.BaseProcess:
        argv = self.stage.argv(self.folder, self.place / out, self.script)
        process = forks.Process(target=run, args=(argv, self.place / "replies.sqlite"))
        process.start()
        return process

    def kill(self, draw: random.Random) -> bool:
        """Starts the stage and kills it a little after its first new question; whether it was still running."""
        before, process = len(lines(self.log)), self.start()
        while process.is_alive() and len(lines(self.log)) == before:
            time.sleep(0.002)
        time.sleep(draw.random() * DELAY * 8 * self.stage.under_way**0.5)
        running = process.is_alive()
        process.kill()
        process.join()
        return running

    def terminate(self) -> int:
        """Starts the stage by its command line and tells it to stop once it has asked something; its exit code."""
        argv = self.stage.argv(self.folder, self.place / "out", self.script)
        env = {**os.environ, "RLHI_REPLIES": str(self.place / "replies.sqlite")}
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


@pytest.fixture(params=EVERY, ids=lambda stage: stage.name)
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
    assert (asked - rehearsal.asked).total() <= kills * rehearsal.stage.under_way


@pytest.mark.slow
def test_stage_that_is_told_to_stop_goes_on_in_the_same_way(rehearsal: Rehearsal) -> None:
    assert rehearsal.terminate() == 130
    with closing(sqlite3.connect(rehearsal.place / "replies.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM claims").fetchone() == (0,)
    rehearsal.finish()
    assert (Counter(lines(rehearsal.log)) - rehearsal.asked).total() <= rehearsal.stage.under_way


@pytest.mark.slow
def test_two_workers_ask_nothing_twice(rehearsal: Rehearsal) -> None:
    workers = [rehearsal.start(out) for out in ("out", "other")]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert {manifest.load(rehearsal.place / out).digest for out in ("out", "other")} == {rehearsal.expected}
    assert Counter(lines(rehearsal.log)) == rehearsal.asked

"""The stage, killed anywhere and started again: the output of an undisturbed run, bit for bit."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest
from rlhi.cli import main
from rlhi.engine.s3.files import Files
from tests.dpo_runs import STEPS, Stage, config_of, history, rows, same, weights, written

EVENTS = ("on_step_begin", "on_pre_optimizer_step", "on_step_end", "on_log")


@dataclass
class Runs:
    """An undisturbed run, and another of the same that is to be killed."""

    calm: Stage
    killed: Stage
    seconds: float

    def die(self, seed: int, then: Callable[[], None] = lambda: None) -> None:
        """Has the other killed three times, at steps and events drawn at random, each later than the one before."""
        draw, steps = random.Random(seed), sum("loss" in row for row in history(self.calm.out))
        for step in sorted(draw.sample(range(1, steps - 1), min(3, steps - 2))):
            assert self.killed.finish((step, draw.choice(EVENTS), signal.SIGKILL)) == -signal.SIGKILL
            then()

    def end_the_same(self) -> None:
        """Starts the other until it ends."""
        assert self.killed.finish() == 0
        made, expected = self.killed.out, self.calm.out
        assert same(weights(made), weights(expected))
        assert (made / "history.json").read_bytes() == (expected / "history.json").read_bytes()
        assert manifest.load(made).digest == manifest.load(expected).digest


@pytest.fixture
def stage(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage whose checkpoints go into a folder."""
    monkeypatch.setenv("RLHI_CHECKPOINTS", str(tmp_path / "place"))
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    config = replace(config_of(tiny_model), validation_share=0.25, checkpoint_every=2)
    return Stage(written(tmp_path / "pairs", rows()), tmp_path / "killed", config)


@pytest.fixture
def runs(stage: Stage, tmp_path: Path) -> Callable[..., Runs]:
    """Does the undisturbed run, with settings by name."""

    def make(**settings: Any) -> Runs:
        killed = replace(stage, config=replace(stage.config, **settings))
        calm = replace(killed, out=tmp_path / "calm")
        started = time.monotonic()
        assert calm.finish() == 0
        return Runs(calm, killed, time.monotonic() - started)

    return make


def test_killed_stage_ends_in_the_same_output(runs: Callable[..., Runs], tmp_path: Path) -> None:
    run = runs()
    assert run.killed.finish((3, "on_log", signal.SIGKILL)) == -signal.SIGKILL
    assert len(list((tmp_path / "place").glob("dpo-*/checkpoint-2"))) == 1
    assert not run.killed.out.exists()
    run.end_the_same()
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"packing": "off"},
        {"packing": "off", "lora_rank": None},
        {"lora_rank": None},
        {"patience": 1, "evaluate_every": 1, "learning_rate": 0.1},
    ],
    ids=["adapter", "stock", "stock full", "full", "best"],
)
def test_stage_killed_at_any_step_ends_in_the_same_output(
    settings: dict[str, Any], seed: int, runs: Callable[..., Runs], tmp_path: Path
) -> None:
    run = runs(**settings)
    run.die(seed)
    run.end_the_same()
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_stage_killed_at_any_moment_ends_in_the_same_output(seed: int, runs: Callable[..., Runs]) -> None:
    run, draw = runs(), random.Random(seed)
    for _ in range(6):
        process = run.killed.start()
        process.join(draw.random() * run.seconds)
        process.kill()
        process.join()
    run.end_the_same()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_pod_that_is_killed_goes_on_from_s3(
    seed: int, runs: Callable[..., Runs], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs()
    monkeypatch.setenv("RLHI_CHECKPOINTS", bucket)
    run.die(seed, lambda: shutil.rmtree(run.killed.scratch))
    assert run.killed.finish((STEPS - 1, "on_step_begin", signal.SIGKILL)) == -signal.SIGKILL
    assert [name for name in Files(bucket).names("") if name.endswith("/listing-0.json")]
    shutil.rmtree(run.killed.scratch)
    run.end_the_same()
    assert Files(bucket).names("") == []


@pytest.mark.slow
def test_checkpoint_of_another_training_is_not_taken(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(stage, config=replace(stage.config, learning_rate=2e-2))
    for each in (stage, other):
        assert each.finish((3, "on_log", signal.SIGKILL)) == -signal.SIGKILL
    mine, theirs = sorted((tmp_path / "place").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    shutil.rmtree(mine)
    shutil.copytree(theirs, mine)
    assert main(stage.argv) == 2
    named = [path.name.removeprefix("dpo-") for path in (theirs, mine)]
    assert f"checkpoint-2: is a checkpoint of training {named[0]}, this is {named[1]}" in capsys.readouterr().err

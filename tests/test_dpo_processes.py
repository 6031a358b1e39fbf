"""A training by several processes, and one whose folder is on S3: what one process makes of a folder on its disk."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest
from rlhi.cli import main
from rlhi.dpo import job as jobs
from rlhi.dpo.job import Job
from rlhi.engine.s3.files import Files
from tests.dpo_runs import STEPS, Stage, config_of, history, job_of, rows, same, weights, works, written

# a process without a row of its own computes one that counts for nothing; TRL means its own by what is computed at once
OTHERWISE = ("needed_share", "logits/", "entropy", "mean_token_accuracy")


def alike(made: Path, expected: Path, trained: str = "trained") -> None:
    """Weights and figures, but for the order in which numbers are added up."""
    found, wanted = weights(made / trained), weights(expected / trained)
    assert found.keys() == wanted.keys()
    assert max(float((found[name] - wanted[name]).abs().max()) for name in wanted) < 1e-5
    for mine, theirs in zip(history(made), history(expected), strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            if name.removeprefix("eval_").startswith(OTHERWISE):
                continue
            assert mine[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name


def both(model: Path, folder: Path, **settings: Any) -> tuple[Job, Job]:
    """The same training twice: done by one process, and to be done."""
    config = replace(config_of(model), **settings)
    one, two = (job_of(folder / name / "job", config, rows()) for name in ("one", "two"))
    assert works(str(one.folder), folder / "one", 1) == [0]
    return one, two


@pytest.mark.parametrize(
    "sharded", [pytest.param(True, id="sharded"), pytest.param(False, id="copies", marks=pytest.mark.slow)]
)
def test_two_processes_train_the_adapter_that_one_trains(sharded: bool, tiny_model: Path, tmp_path: Path) -> None:
    one, two = both(tiny_model, tmp_path)
    assert works(str(two.folder), tmp_path / "two", 2, sharded=sharded) == [0, 0]
    alike(two.folder, one.folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"lora_rank": None, "learning_rate": 1e-3},
        {"lora_rank": None, "loss_type": ("sft",), "learning_rate": 1e-3},
        {"loss_type": ("sigmoid", "sft"), "loss_weights": (1.0, 0.5)},
        {"packing": "off", "batch_size": 2, "micro_batch_size": 1, "epochs": 2},
        {"patience": 1, "evaluate_every": 1, "learning_rate": 0.1},
        {"patience": 1, "evaluate_every": 1, "learning_rate": 3e-2, "lora_rank": None, "loss_type": ("sft",)},
    ],
    ids=["full", "sft", "two losses", "stock", "best adapter", "best weights"],
)
@pytest.mark.parametrize("sharded", [True, False], ids=["sharded", "copies"])
def test_two_processes_train_what_one_trains(
    settings: dict[str, Any], sharded: bool, tiny_model: Path, tmp_path: Path
) -> None:
    one, two = both(tiny_model, tmp_path, **settings)
    if "patience" in settings:
        assert len([row for row in history(one.folder) if "loss" in row]) < STEPS
    assert works(str(two.folder), tmp_path / "two", 2, sharded=sharded) == [0, 0]
    alike(two.folder, one.folder)


@pytest.mark.slow
def test_step_that_processes_cannot_share_out_is_refused(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(config_of(tiny_model), packing="off", processes=2)
    written(tmp_path / "pairs", rows())
    stage = Stage(tmp_path / "pairs", tmp_path / "out", config)
    assert main(stage.argv) == 2
    assert "dpo.batch_size=3 is no multiple of dpo.micro_batch_size=3 times 2 processes" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"lora_rank": None, "learning_rate": 1e-3}], ids=["adapter", "full"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_two_processes_go_on_from_their_checkpoint(
    settings: dict[str, Any], sent: signal.Signals, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = both(tiny_model, tmp_path, **settings)
    again = job_of(tmp_path / "again" / "job", two.config, rows())
    assert works(str(two.folder), tmp_path / "two", 2) == [0, 0]

    monkeypatch.setenv("RLHI_CHECKPOINTS", str(tmp_path / "place"))
    killed = works(str(again.folder), tmp_path / "again", 2, (4, "on_pre_optimizer_step", sent))
    assert killed[1] == -sent
    kept = "checkpoint-3" if sent == signal.SIGKILL else "checkpoint-5"
    assert (tmp_path / "place" / "dpo-0f" / kept / "listing-0.json").exists()
    assert works(str(again.folder), tmp_path / "again", 2) == [0, 0]
    assert history(again.folder) == history(two.folder)
    assert same(weights(again.trained), weights(two.trained))
    alike(again.folder, one.folder)


@pytest.mark.slow
def test_more_processes_go_on_from_a_checkpoint_of_fewer(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, more = both(tiny_model, tmp_path)
    monkeypatch.setenv("RLHI_CHECKPOINTS", str(tmp_path / "place"))
    assert works(str(more.folder), tmp_path / "two", 2, (7, "on_step_begin", signal.SIGKILL))[1] == -signal.SIGKILL
    assert (tmp_path / "place" / "dpo-0f" / "checkpoint-6" / "listing-0.json").exists()
    assert works(str(more.folder), tmp_path / "three", 3) == [0, 0, 0]
    alike(more.folder, one.folder)


@pytest.mark.slow
def test_processes_do_not_go_on_from_a_checkpoint_of_one(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_CHECKPOINTS", str(tmp_path / "place"))
    one = Stage(written(tmp_path / "pairs", rows()), tmp_path / "out", config_of(tiny_model))
    assert one.finish((4, "on_step_begin", signal.SIGKILL)) == -signal.SIGKILL
    assert replace(one, config=replace(one.config, processes=2)).finish() == 0


@pytest.mark.slow
def test_stage_by_two_processes_makes_what_one_makes(tiny_model: Path, tmp_path: Path) -> None:
    pairs = written(tmp_path / "pairs", rows())
    config = replace(config_of(tiny_model), validation_share=0.25)
    for count in (1, 2):
        assert Stage(pairs, tmp_path / str(count), replace(config, processes=count)).finish() == 0
    alike(tmp_path / "2", tmp_path / "1", ".")
    one, two = (manifest.load(tmp_path / name) for name in ("1", "2"))
    assert (two.kept, two.dropped) == (one.kept, one.dropped)
    assert two.metrics["validation_margin"] == pytest.approx(one.metrics["validation_margin"], rel=1e-3)


@pytest.mark.slow
def test_folder_on_s3_is_worked_on_as_one_on_the_disk(tiny_model: Path, tmp_path: Path, bucket: str) -> None:
    config, start = config_of(tiny_model), written(tmp_path / "start", rows())
    first, one, two = (job_of(tmp_path / name / "job", config, rows()) for name in ("first", "one", "two"))
    assert works(str(first.folder), tmp_path / "first", 1) == [0]
    shutil.move(first.trained / "adapter", start / "adapter")
    for job in (one, two):
        (job.folder / "start").symlink_to(start)
    jobs.lend(two, bucket)
    assert works(str(one.folder), tmp_path / "one", 1) == [0]
    assert works(bucket, tmp_path / "two", 1) == [0]
    assert not two.trained.exists()
    jobs.collect(two, bucket)
    assert history(two.folder) == history(one.folder)
    assert same(weights(two.trained), weights(one.trained))
    assert two.made("validation") == one.made("validation")
    assert Files(bucket).names("") == []


@pytest.mark.slow
def test_two_processes_work_on_a_folder_on_s3_and_keep_checkpoints_there(
    tiny_model: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = both(tiny_model, tmp_path)
    monkeypatch.setenv("RLHI_CHECKPOINTS", bucket)
    copy = f"{bucket}/job-0f"
    jobs.lend(two, copy)
    assert works(copy, tmp_path / "two", 2, (7, "on_step_begin", signal.SIGKILL))[1] == -signal.SIGKILL
    assert "dpo-0f/checkpoint-6/listing-0.json" in Files(bucket).names("")
    assert works(copy, tmp_path / "other pod", 2) == [0, 0]
    jobs.collect(two, copy)
    alike(two.folder, one.folder)

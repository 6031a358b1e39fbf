"""Early stopping, on a model of one weight that transformers trains; nothing of it is faked."""

import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from rlhi.dpo.callbacks import Best, Record, Warn, load_best

STEPS = 20


class Weight(torch.nn.Module):  # type: ignore[misc]
    """Learns ``target``; its loss is the squared distance."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, target: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.weight - target) ** 2).mean()}


class Killed(TrainerCallback):  # type: ignore[misc]
    """Ends the training after a step, its checkpoint included."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._step:
            raise KeyboardInterrupt


@dataclass
class Run:
    folder: Path
    patience: int | None = 3
    evaluate_every: int = 2
    target: float = 0.55  # of validation: training passes it on the way from 0 to 1, in steps of 0.1

    def trainer(self, *callbacks: TrainerCallback) -> Trainer:
        args = TrainingArguments(
            output_dir=str(self.folder),
            learning_rate=0.05,
            optim="sgd",
            lr_scheduler_type="constant",
            max_steps=STEPS,
            per_device_train_batch_size=1,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=self.evaluate_every,
            save_strategy="steps",
            save_steps=5,
            save_total_limit=2,
            restore_callback_states_from_checkpoint=True,
            report_to=[],
            label_names=["target"],
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        if self.patience is not None:
            load_best(args)
        made = Trainer(
            Weight(),
            args,
            train_dataset=[{"target": 1.0}] * STEPS,
            eval_dataset=[{"target": self.target}] * 2,
            callbacks=[Best(self.patience), *callbacks],
        )
        made.remove_callback(PrinterCallback)
        return made


def losses(trainer: Trainer) -> dict[int, float]:
    return {row["step"]: row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row}


def test_training_stops_after_patience_and_gives_the_best_weights(tmp_path: Path) -> None:
    trainer = Run(tmp_path).trainer()
    trainer.train()
    found = losses(trainer)
    best = min(found, key=lambda step: found[step])
    assert best % 5 != 0  # where no checkpoint was due
    assert trainer.state.global_step == best + 3 * 2 < STEPS
    assert (trainer.model.weight.item() - 0.55) ** 2 == pytest.approx(found[best], abs=1e-6)


def test_last_step_is_validated_and_may_be_the_best(tmp_path: Path) -> None:
    trainer = Run(tmp_path, evaluate_every=7, target=1.0).trainer()
    trainer.train()
    assert [*losses(trainer)] == [7, 14, STEPS]
    assert (trainer.model.weight.item() - 1) ** 2 == pytest.approx(losses(trainer)[STEPS], abs=1e-6)


def test_without_patience_all_steps_are_taken_and_the_last_weights_given(tmp_path: Path) -> None:
    trainer = Run(tmp_path, patience=None).trainer()
    trainer.train()
    assert trainer.state.global_step == STEPS
    assert trainer.model.weight.item() > 0.8
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-15", "checkpoint-20"}


@pytest.mark.parametrize("step", [6, 9, 11, 12, 13])
def test_training_that_was_killed_and_moved_ends_in_the_same_weights(tmp_path: Path, step: int) -> None:
    undisturbed = Run(tmp_path / "undisturbed").trainer()
    undisturbed.train()
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path / "killed").trainer(Killed(step)).train()
    shutil.move(tmp_path / "killed", tmp_path / "moved")
    newest = max((tmp_path / "moved").glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    again = Run(tmp_path / "moved").trainer(Found())
    again.train(resume_from_checkpoint=str(newest))
    assert losses(again) == losses(undisturbed)
    assert again.model.weight.item() == undisturbed.model.weight.item()


class Found(TrainerCallback):  # type: ignore[misc]
    """What the keeper of checkpoints does when they lie in another place than they were written to."""

    def on_train_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        state.best_model_checkpoint = str(best) if best.is_dir() else None


def test_history_is_written_while_it_trains_and_whole_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[int]] = []

    def write(log: Iterable[Mapping[str, float]]) -> None:
        written.append([int(row["step"]) for row in log if "loss" in row])

    monkeypatch.setattr("rlhi.dpo.callbacks.EVERY", 0.0)
    trainer = Run(tmp_path, patience=None).trainer(Record(write))
    trainer.train()
    assert written[0] == [1]
    assert written[-1] == [*range(1, STEPS + 1)]


def test_warning_is_said_once_over_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "rlhi")
    run = Run(tmp_path, patience=None, target=0.3)  # validation rises from step 8 on
    with pytest.raises(KeyboardInterrupt):
        run.trainer(Warn(0.1), Killed(15)).train()
    said = [record.getMessage() for record in caplog.records]
    run.trainer(Warn(0.1)).train(resume_from_checkpoint=str(tmp_path / "checkpoint-15"))
    assert len(said) == 1
    assert "The validation loss rises" in said[0]
    assert [record.getMessage() for record in caplog.records] == said

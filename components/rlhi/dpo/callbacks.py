"""What a training tells while it runs, and when it stops: callbacks of a transformers Trainer.

Trainer knows the best validation so far, saves it and loads it at the end; its own early stopping only waits. `Best`
adds what is missing: it saves whenever a validation is the best, not only where checkpoint and validation coincide; it
stops by the history alone, which a resumed training has; and it validates after the last step.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

from rlhi.dpo.watch import Watch

EVERY = 5.0  # seconds between two writings of the history
log = logging.getLogger("rlhi")
History = Sequence[Mapping[str, float]]


class Record(TrainerCallback):  # type: ignore[misc]
    """Gives the history so far to ``write``, every few seconds and at the end; in the first process only."""

    def __init__(self, write: Callable[[History], None]) -> None:
        self._write = write
        self._at = -math.inf

    def on_log(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Writes, unless it just has."""
        del args
        if state.is_world_process_zero and time.monotonic() - self._at > EVERY:
            self._write(state.log_history)
            self._at = time.monotonic()

    def on_train_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Writes all of it."""
        del args
        if state.is_world_process_zero:
            self._write(state.log_history)


class Warn(TrainerCallback):  # type: ignore[misc]
    """Says each warning of `rlhi.dpo.watch` when it first shows."""

    def __init__(self, beta: float) -> None:
        self._beta = beta
        self._watch = Watch(beta, 0)

    def on_train_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Takes in what was said before a restart."""
        del args
        self._watch = Watch(self._beta, state.max_steps)
        for row in state.log_history:
            self._watch.see(row)

    def on_log(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Looks at the newest row."""
        del args
        for text in self._watch.see(state.log_history[-1]):
            if state.is_world_process_zero:
                log.warning("training: %s", text)


class Best(TrainerCallback):  # type: ignore[misc]
    """Stops after ``patience`` validations without a lower loss; null never stops. Needs a validation set."""

    def __init__(self, patience: int | None) -> None:
        self._patience = patience

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validates after the last step, wherever that falls."""
        del args
        if state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Saves what is the best, or counts."""
        del args
        if self._patience is None:
            return
        found = [row["eval_loss"] for row in state.log_history if "eval_loss" in row]
        losses = [loss if math.isfinite(loss) else math.inf for loss in found]
        since = len(losses) - 1 - losses.index(min(losses))
        control.should_save = control.should_save or since == 0
        control.should_training_stop = control.should_training_stop or since >= self._patience


def load_best(args: Any) -> None:
    """Has Trainer load the weights of the lowest validation loss at the end.

    Set on arguments that are made: when they are, transformers asks that checkpoints come at multiples of validations
    only. `Best` saves where it matters.
    """
    args.metric_for_best_model, args.greater_is_better, args.load_best_model_at_end = "eval_loss", False, True

"""What Trainer is told, and what it tells: when to save, and when to stop."""

import signal
from typing import Any

from transformers import TrainerCallback

from rlhi.dpo.checkpoints import ranks
from rlhi.dpo.checkpoints.kept import Checkpoints
from rlhi.dpo.checkpoints.listing import name_of

TOKENS = "num_tokens"  # TRL counts them from the start of the process


def arguments(every: int) -> dict[str, Any]:
    """Arguments of a Trainer that saves every so many steps, and whose training is the same when it is resumed."""
    return {
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": None,  # `Checkpoints` deletes the older ones, after a newer one is whole
        "logging_strategy": "steps",
        "logging_steps": 1,  # what Trainer has added up since it last logged is in no checkpoint
        "restore_callback_states_from_checkpoint": True,  # how long early stopping has been waiting
    }


class Keeper(TrainerCallback):  # type: ignore[misc]
    """Gives each checkpoint to `Checkpoints`, and puts SIGTERM off until the step is done and saved.

    What the process does on SIGTERM it then does. A checkpoint of the last step is not kept: Trainer would take one
    step too many when resumed there, and what training makes is written next.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._counted = 0.0
        self._told = False  # SIGTERM has come, here
        self._stops = False  # or to one of the processes

    def on_train_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Finds what an earlier process has left."""
        del args
        best = self._checkpoints.folder / name_of(state.best_global_step or 0)
        if best.is_dir():
            state.best_model_checkpoint = str(best)  # it may have been in another place
        self._counted = max((row[TOKENS] for row in state.log_history if TOKENS in row), default=0.0)
        self._former = signal.signal(signal.SIGTERM, self._tell)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Goes on counting from there."""
        del args, control
        for row in (logs, state.log_history[-1]):
            row.update({key: row[key] + self._counted for key in (TOKENS, f"eval_{TOKENS}") if key in row})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Has a checkpoint made when one of the processes is to stop, and none at the end unless Trainer needs it."""
        del state
        self._stops = ranks.anywhere(self._told, args.device)
        if control.should_training_stop:
            control.should_save = args.load_best_model_at_end
        elif self._stops:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keeps the checkpoint."""
        del args
        if control.should_training_stop:
            return
        self._checkpoints.keep(state.global_step, state.best_global_step)
        if self._stops:
            self._checkpoints.flush()
            ranks.barrier()  # the first to end would take the others with it
            self._stop()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Waits for the last checkpoint."""
        self._checkpoints.flush()
        if self._told:
            self._stop()
        signal.signal(signal.SIGTERM, self._former)

    def _tell(self, *_: object) -> None:
        self._told = True

    def _stop(self) -> None:
        signal.signal(signal.SIGTERM, self._former)
        signal.raise_signal(signal.SIGTERM)

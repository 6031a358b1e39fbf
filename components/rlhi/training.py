"""What the training loops share."""

from typing import Any

from transformers import TrainerCallback

from rlhi.progress import bar


def usual(device: str) -> dict[str, Any]:
    """Arguments of every Trainer here. The paper gives no schedule: a tenth of the steps warms up, then it is linear.

    The Trainer saves and reports nothing and cuts no input: the stages see to all three.
    """
    return {
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "max_length": None,
        "bf16": device == "cuda",
        "use_cpu": device == "cpu",
        "activation_checkpointing": device == "cuda",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
    }


class Bar(TrainerCallback):  # type: ignore[misc]
    """Shows the steps of a transformers Trainer."""

    def on_train_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Opens the bar."""
        del args
        self.shown = bar("training", state.max_steps, "step")

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Moves it on."""
        self.shown.update()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Closes it."""
        self.shown.close()

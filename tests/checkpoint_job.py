"""A small training with checkpoints, in a process that can be killed."""

import json
import os
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, EarlyStoppingCallback, PrinterCallback, TrainerCallback
from trl import DPOConfig

from rlhi.dpo.checkpoints import Checkpoints, Keeper, arguments
from rlhi.dpo.trainer import PreparedDPOTrainer
from rlhi.training import usual
from tests.forks import FORKS, settle

STEPS = 12  # of five to an epoch, so that it ends within one
WEIGHTS, HISTORY = "weights.safetensors", "history.json"


@dataclass(frozen=True)
class Job:
    """One training. ``dies`` is how many steps are done, and the event, when a signal comes."""

    model: Path
    place: str
    scratch: Path
    out: Path
    dies: tuple[int, str, signal.Signals] | None = None
    lora: bool = True
    patience: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> ForkServerProcess:
        process = FORKS.Process(target=run, args=(self,))
        process.start()
        return process

    def finish(self) -> int | None:
        process = self.start()
        process.join(120)
        return process.exitcode


class Killer(TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int, event: str, sent: signal.Signals) -> None:
        def die(args: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step == step:
                os.kill(os.getpid(), sent)

        setattr(self, event, die)


def run(job: Job) -> None:
    settle(job.environment)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    checkpoints = Checkpoints(job.place, "one", job.scratch)
    trainer = PreparedDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(job.model),
        args=DPOConfig(**settings(job, checkpoints.folder)),
        train_dataset=pairs(18, 1),
        eval_dataset=pairs(4, 2),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        peft_config=LoraConfig(r=4, lora_dropout=0.2, target_modules="all-linear") if job.lora else None,
        callbacks=[Keeper(checkpoints)],
    )
    trainer.remove_callback(PrinterCallback)
    if job.patience:
        trainer.add_callback(EarlyStoppingCallback(job.patience))
    if job.dies:
        trainer.add_callback(Killer(*job.dies))
    found = checkpoints.restore()
    trainer.train(resume_from_checkpoint=found and str(found))
    if trainer.args.process_index == 0:
        job.out.mkdir(parents=True)
        weights = {name: value.clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
        save_file(weights, job.out / WEIGHTS)
        (job.out / HISTORY).write_text(json.dumps(trainer.state.log_history))


def settings(job: Job, folder: Path) -> dict[str, Any]:
    shared = usual("cpu") | arguments(3)
    return shared | {
        "output_dir": str(folder),
        "learning_rate": 5e-3,
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "precompute_ref_log_probs": True,  # the pairs bring them
        **job.settings,
    }


def pairs(count: int, seed: int) -> Dataset:
    draw = random.Random(seed)

    def tokens() -> list[int]:
        return [draw.randrange(3, 300) for _ in range(draw.randrange(2, 12))]

    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    reference = {"ref_chosen_logps": -30.0, "ref_rejected_logps": -31.0}
    return Dataset.from_list([{column: tokens() for column in columns} | reference for _ in range(count)])

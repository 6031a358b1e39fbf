"""The training loop: TRL's DPOTrainer on tokens that `render` made."""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer

from rlhi.dpo.stage import DpoConfig, TokenizedPair
from rlhi.engine.models import Policy
from rlhi.progress import bar


@dataclass(frozen=True)
class Trained:
    """Curves (a row per step) and closing figures."""

    history: list[dict[str, float]]
    metrics: dict[str, float]


class PreparedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on a dataset that holds prompt_ids, chosen_ids and rejected_ids already."""

    def _prepare_dataset(self, dataset: Any, *_: object, **__: object) -> Any:
        return dataset


class _Bar(TrainerCallback):  # type: ignore[misc]
    def on_train_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        del args
        self.shown = bar("training", state.max_steps, "step")

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.shown.update()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.shown.close()


def train(policy: Policy, pairs: Sequence[TokenizedPair], config: DpoConfig, adapter: Path) -> Trained:
    """Trains a fresh LoRA adapter on ``pairs`` and saves it in ``adapter`` (PEFT's format)."""
    torch.manual_seed(config.seed)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = PreparedDPOTrainer(
            model=policy.model.train(),
            args=_arguments(config, len(pairs), policy, scratch),
            train_dataset=Dataset.from_list([asdict(pair) for pair in pairs]),
            processing_class=policy.renderer.tokenizer,
            peft_config=LoraConfig(
                r=config.lora_rank,
                lora_alpha=2 * config.lora_rank,
                lora_dropout=0.0,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
            callbacks=[_Bar()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.model.save_pretrained(str(adapter))
        _settle(adapter / "adapter_config.json", config)
        return _summary(trainer.state.log_history, len(pairs))


def _settle(path: Path, config: DpoConfig) -> None:
    """PEFT writes a set in the order of the day, and the base model's path on this machine: settle both."""
    written = json.loads(path.read_text())
    written |= {"target_modules": sorted(written["target_modules"]), "base_model_name_or_path": config.model.id}
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def _arguments(config: DpoConfig, pairs: int, policy: Policy, scratch: str) -> DPOConfig:
    """The paper's batch is global: accumulate up to it, or up to all pairs where there are fewer."""
    whole = min(config.batch_size, math.ceil(pairs / config.micro_batch_size) * config.micro_batch_size)
    return DPOConfig(
        output_dir=scratch,
        loss_type=["sigmoid" if config.loss == "dpo" else "sft"],
        beta=config.beta,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=max(1, whole // config.micro_batch_size),
        max_length=None,
        precompute_ref_log_probs=config.loss == "dpo",
        precompute_ref_batch_size=config.micro_batch_size,
        bf16=policy.device.type == "cuda",
        use_cpu=policy.device.type == "cpu",
        activation_checkpointing=policy.device.type == "cuda",
        seed=config.seed,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )


def _summary(log: Sequence[Mapping[str, float]], pairs: int) -> Trained:
    steps = [{key: float(value) for key, value in row.items()} for row in log if "loss" in row]
    last = steps[-1] if steps else {}
    named = {"loss": "loss", "rewards/margins": "margin", "rewards/accuracies": "accuracy"}
    metrics = {name: last[key] for key, name in named.items() if key in last}
    return Trained(steps, {"pairs": float(pairs), "steps": float(len(steps)), **metrics})

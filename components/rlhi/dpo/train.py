"""The training loop, in one process of perhaps many."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PrinterCallback
from trl import DPOConfig

from rlhi import curves
from rlhi.dpo import checkpoints
from rlhi.dpo.callbacks import Best, Record, Warn, load_best
from rlhi.dpo.checkpoints import VARIABLE, Checkpoints, Keeper
from rlhi.dpo.config import DpoConfig
from rlhi.dpo.job import Job
from rlhi.dpo.plan import batches
from rlhi.dpo.trainer import PackedDPOTrainer, PreparedDPOTrainer, Referred, TrainingData, Validated
from rlhi.engine.models import Policy, load_policy, trained_in
from rlhi.errors import InputError
from rlhi.training import Bar, usual

ADAPTER = "adapter_model.safetensors"


@dataclass(frozen=True)
class Trained:
    """The last validation by pair, and the speed."""

    validated: list[Validated]
    tokens_per_s: float


def train(job: Job, pairs: Sequence[Referred], validation: Sequence[Referred]) -> Trained:
    """Trains on ``pairs`` and saves an adapter or all weights in ``job.trained``."""
    config = job.config
    torch.manual_seed(config.seed)
    data = TrainingData(
        pairs, batches(len(pairs), config.batch_size, config.epochs, config.seed), validation, config.row_tokens
    )
    policy = start_policy(config, job.model("start"))
    kept = checkpoints_of(job.fingerprint, job.folder)
    trainer = open_trainer(config, policy, data, kept.folder)
    if config.lora_rank is not None and (start := job.model("start")) is not None:
        _go_on(trainer.model, start / "adapter")
    trainer.add_callback(Keeper(kept))
    trainer.add_callback(Record(lambda log: curves.save(job.copy or job.folder, _by_pass(log, config))))
    found = kept.restore()
    trainer.train(resume_from_checkpoint=found and str(found))
    log = list(trainer.state.log_history)
    if trainer.state.best_model_checkpoint is not None:
        trainer.evaluate()  # by pair, with the weights that have been loaded
    _save(trainer, job)
    return Trained(getattr(trainer, "validated", []), _speed(log))


def checkpoints_of(fingerprint: str, scratch: Path) -> Checkpoints:
    """Where ``RLHI_CHECKPOINTS`` says, or beside outputs that are kept; else below ``scratch``, and lost with it.

    The processes of a node share ``scratch``: each writes its part of a checkpoint.
    """
    named, kept = os.environ.get(VARIABLE), os.environ.get("RLHI_STORE")
    return Checkpoints(named or str(Path(kept or scratch) / "checkpoints"), fingerprint, scratch)


def start_policy(config: DpoConfig, start: Path | None) -> Policy:
    """What is trained: the base model (a start's adapter comes later), or a start's weights, or both merged.

    All weights are trained in float32, of which autocast makes 16 bits to compute; below an adapter they stay 16 bits
    on one GPU. On several they are float32 too: FSDP shards weights of one type together.

    Raises:
        InputError: an adapter is to be trained, but the start has weights of its own.
    """
    if config.lora_rank is None:
        return load_policy(config.model, trained_in(start), torch.float32)
    if start is not None and not (start / "adapter").exists():
        raise InputError(f"{start}: holds no adapter to go on from; set dpo.lora_rank=null")
    return load_policy(config.model, dtype=torch.float32 if PartialState().num_processes > 1 else None)


def open_trainer(config: DpoConfig, policy: Policy, data: TrainingData, folder: Path) -> Any:
    """The trainer that ``config`` asks for."""
    args = _arguments(config, data, policy, folder)
    common: dict[str, Any] = {
        "model": policy.model.train(),
        "args": args,
        "processing_class": policy.renderer.tokenizer,
        "peft_config": _adapter(config),
        "callbacks": [Bar(), Warn(config.beta), *([Best(config.patience)] if data.validation else [])],
    }
    packed = config.packing == "on"
    rows = [[stock(one) for one in some] for some in (data.pairs, data.validation)]
    if packed:
        rows = [[{"id": one.pair.id} for one in some] for some in (data.pairs, data.validation)]
    sets = [Dataset.from_list(some) if some else None for some in rows]
    common |= {"train_dataset": sets[0], "eval_dataset": sets[1]}
    trainer = PackedDPOTrainer(data=data, **common) if packed else PreparedDPOTrainer(**common)
    trainer.remove_callback(PrinterCallback)
    return trainer


def stock(one: Referred) -> dict[str, Any]:
    """A row as TRL's collator reads it."""
    pair = one.pair
    ids = {"prompt_ids": pair.prompt_ids, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids}
    return {**ids, "ref_chosen_logps": one.chosen, "ref_rejected_logps": one.rejected}


def _adapter(config: DpoConfig) -> LoraConfig | None:
    if config.lora_rank is None:
        return None
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _go_on(model: Any, adapter: Path) -> None:
    """Puts the weights of an earlier round's adapter into the fresh one."""
    weights = load_file(adapter / ADAPTER)
    rank = json.loads((adapter / "adapter_config.json").read_text())["r"]
    if rank != (asked := model.peft_config["default"].r):
        raise InputError(f"{adapter}: has rank {rank}, but dpo.lora_rank={asked}; set it to {rank}")
    set_peft_model_state_dict(model, weights)


def _arguments(config: DpoConfig, data: TrainingData, policy: Policy, folder: Path) -> DPOConfig:
    """All pairs of a step are one batch to the packed trainer; TRL's own accumulates up to it, over all processes."""
    size = len(data.steps[0])
    packed = config.packing == "on"
    micro, accumulated = (size, 1) if packed else _parts(config, size, PartialState().num_processes)
    device = policy.device.type
    checkpointing = device == "cuda" if config.gradient_checkpointing is None else config.gradient_checkpointing
    every = config.evaluate_every or max(1, len(data.steps) // 10)
    given: dict[str, Any] = usual(device) | checkpoints.arguments(config.checkpoint_every)
    given |= {"activation_checkpointing": checkpointing, "warmup_steps": len(data.steps) // 10}
    if data.validation:
        given |= {"eval_strategy": "steps", "eval_steps": every}
    if PartialState().num_processes > 1:
        given |= {"fsdp": True, "fsdp_config": {"version": 2}}
    made = DPOConfig(
        output_dir=str(folder),
        loss_type=list(config.loss_type),
        loss_weights=None if config.loss_weights is None else list(config.loss_weights),
        label_smoothing=config.label_smoothing,
        beta=config.beta,
        learning_rate=config.learning_rate,
        num_train_epochs=1 if packed else config.epochs,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=accumulated,
        # TRL would load a reference model otherwise; with an adapter it does not, and need not hash the weights
        precompute_ref_log_probs=config.lora_rank is None,
        ddp_find_unused_parameters=False,
        logging_nan_inf_filter=False,
        seed=config.seed,
        **given,
    )
    if data.validation and config.patience is not None:
        load_best(made)
    return made


def _parts(config: DpoConfig, size: int, processes: int) -> tuple[int, int]:
    """How many pairs of a step TRL's trainer computes at a time in each process, and how often.

    Raises:
        InputError: no number of times makes a step of them.
    """
    if config.batch_size % (config.micro_batch_size * processes):
        raise InputError(
            f"dpo.batch_size={config.batch_size} is no multiple of dpo.micro_batch_size={config.micro_batch_size}"
            f" times {processes} processes"
        )
    micro = max(1, min(config.micro_batch_size, size // processes))
    return micro, max(1, size // (micro * processes))


def _save(trainer: Any, job: Job) -> None:
    """The adapter (PEFT), or all weights with the tokenizer; sharded weights are gathered by all processes."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    if job.config.lora_rank is None:
        model.save_pretrained(job.trained / "weights", state_dict=state)
        trainer.processing_class.save_pretrained(job.trained / "weights")
    else:
        model.save_pretrained(job.trained / "adapter", state_dict=state)
        _settle(job.trained / "adapter" / "adapter_config.json", job.config)


def _settle(path: Path, config: DpoConfig) -> None:
    """PEFT writes a set in the order of the day, and the base model's path on this machine: settle both."""
    written = json.loads(path.read_text())
    written |= {"target_modules": sorted(written["target_modules"]), "base_model_name_or_path": config.model.id}
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def _by_pass(log: Sequence[Mapping[str, float]], config: DpoConfig) -> list[dict[str, float]]:
    """Rows by passes over the pairs; to the packed trainer all of them are one."""
    passes = config.epochs if config.packing == "on" else 1.0
    return [{**row, "epoch": row["epoch"] * passes} for row in log]


def _speed(log: Sequence[Mapping[str, float]]) -> float:
    """Tokens computed a second, in the middle of the steps."""
    found = [row["tokens_per_s"] for row in log if "tokens_per_s" in row]
    return statistics.median(found) if found else 0.0

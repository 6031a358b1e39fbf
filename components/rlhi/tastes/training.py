"""Trains one arm with the project's own trainer: pairs, renderer, reference log-probabilities and packed rows.

What the dpo stage does and this does not: it shuffles pairs, which would part twins. The steps are given here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhi import curves
from rlhi.dpo.config import DpoConfig
from rlhi.dpo.reference import reference
from rlhi.dpo.tokens import TokenizedPair, tokenize
from rlhi.dpo.train import open_trainer, start_policy
from rlhi.dpo.trainer import Referred, TrainingData
from rlhi.dpo.work import meet, reference_policy
from rlhi.engine.models import Policy
from rlhi.errors import InputError
from rlhi.records import Pair


def train(config: DpoConfig, pairs: Sequence[Pair], folder: Path) -> list[dict[str, float]]:
    """Takes ``config.batch_size`` pairs a step, in order; leaves ``adapter/`` or ``weights/`` and gives the history.

    Raises:
        InputError: a pair cannot be trained on, which would part twins.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meet(config)
    policy = start_policy(config, None)
    kept, tokens, dropped = tokenize(pairs, policy.renderer, config.max_tokens)
    if dropped:
        raise InputError(f"pair {dropped[0].id}: {dropped[0].reason}; raise dpo.max_tokens={config.max_tokens}")
    size = config.batch_size
    steps = [list(range(start, start + size)) for start in range(0, len(kept) - size + 1, size)]
    data = TrainingData(_referred(config, tokens), steps, [], config.row_tokens)
    trainer = open_trainer(config, policy, data, folder / "trainer")
    trainer.train()
    _save(trainer, config, folder)
    log = [dict(row) for row in trainer.state.log_history]
    curves.save(folder, log)
    return log


def _referred(config: DpoConfig, tokens: Sequence[TokenizedPair]) -> list[Referred]:
    if not config.refers:
        return [Referred(pair, 0.0, 0.0) for pair in tokens]
    policy: Policy = reference_policy(config, None)
    scores = reference(policy, tokens, config.row_tokens)
    return [Referred(pair, *score) for pair, score in zip(tokens, scores, strict=True)]


def _save(trainer: Any, config: DpoConfig, folder: Path) -> None:
    kind = "weights" if config.lora_rank is None else "adapter"
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder / kind)
    if config.lora_rank is None:
        trainer.processing_class.save_pretrained(folder / kind)

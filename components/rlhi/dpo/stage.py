"""Trains a LoRA adapter by persona-conditioned DPO on the pairs (eq. 1).

    loss = -log sigmoid(beta * ((log pi(y+ | x, p) - log ref(y+ | x, p)) - (log pi(y- | x, p) - log ref(y- | x, p))))

Eq. 1 of the paper lacks the minus sign; taken literally it trains backwards. The persona is part of the prompt, by the
same `render` that serves it. The reference is the base model: the adapter switched off, its log-probabilities computed
once. The paper trains all weights; a LoRA adapter is our default, since it fits where the paper's does not.

`loss: sft` is the baseline of 3.3: the same path, likelihood of the chosen answer only. Pairs that are too long are
dropped with a reason before training: the trainer would cut them without a word. The output holds the adapter, the
pairs that trained it, and the training history.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, ModelConfig, StageConfig
from rlhi.errors import InputError
from rlhi.records import Dropped, Message, Pair


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class DpoConfig(StageConfig):
    """The policy and how it is trained."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    loss: Literal["dpo", "sft"] = Field(default="dpo", description="'sft' trains on the chosen answers only (3.3).")
    beta: float = Field(
        default=0.1, gt=0, description="Sharpness of the preference; the paper gives it for online DPO only."
    )
    learning_rate: float = Field(default=5e-7, gt=0, description="3.2 sweeps 5e-7 and 1e-6.")
    batch_size: int = Field(
        default=64, ge=1, description="Pairs per step, over all devices (3.2: 64 offline, 32 online)."
    )
    micro_batch_size: int = Field(default=2, ge=1, description="Pairs computed at a time.")
    epochs: float = Field(default=1.0, gt=0, description="Passes over the pairs.")
    max_tokens: int = Field(
        default=4096, ge=64, description="Pairs with a longer prompt and answer are dropped with a reason."
    )
    lora_rank: int = Field(default=16, ge=1, description="Rank of the adapter.")


@plain_dataclass(frozen=True, slots=True)
class TokenizedPair:
    """Token ids of one pair; the prompt's tokens are a prefix of both answers' sequences."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the longer of the two sequences."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


class Renders(Protocol):
    """What tokenizing needs of `rlhi.render.Renderer`."""

    def prompt(self, messages: Sequence[Message], persona: str | None = None) -> list[int]:
        """Token ids up to where the answer begins."""

    def answer(self, text: str) -> list[int]:
        """Token ids of the answer and of its end."""


def run(pairs: Input[Pair], model: Output[Pair], config: DpoConfig) -> None:
    """Writes ``adapter/`` (PEFT), ``history.json`` and the pairs that were trained on.

    Raises:
        InputError: batch sizes that do not divide, or no pair short enough.
    """
    if config.batch_size % config.micro_batch_size:
        raise InputError(
            f"dpo.batch_size={config.batch_size} is no multiple of dpo.micro_batch_size={config.micro_batch_size}"
        )
    from rlhi.dpo.train import train
    from rlhi.engine.models import load_policy

    rows = pairs.read()
    policy = load_policy(config.model)
    kept, tokens, dropped = tokenize(rows, policy.renderer, config.max_tokens)
    if not kept:
        raise InputError(f"{pairs.path}: all {len(rows)} pairs exceed dpo.max_tokens={config.max_tokens}; raise it")
    model.write(kept, dropped, len(rows))
    trained = train(policy, tokens, config, model.file("adapter"))
    model.file("history.json").write_text(json.dumps(trained.history, indent=1) + "\n")
    model.measure(trained.metrics)
    model.note(
        "chat template", f"Chat template of the policy: {policy.renderer.template_hash} (sha256, first 16 digits)."
    )
    revision = f", revision {config.model.revision}" if config.model.revision else ""
    model.note("base model", f"Base model: {config.model.id}{revision}.")


def tokenize(
    rows: Sequence[Pair], renderer: Renders, max_tokens: int
) -> tuple[list[Pair], list[TokenizedPair], list[Dropped]]:
    """Pairs with their tokens, and those that are too long."""
    kept, tokens, dropped = [], [], []
    for row in rows:
        made = TokenizedPair(
            renderer.prompt(row.context, row.persona), renderer.answer(row.chosen), renderer.answer(row.rejected)
        )
        if made.length > max_tokens:
            dropped.append(Dropped(row.id, "pair_too_long"))
        else:
            kept.append(row)
            tokens.append(made)
    return kept, tokens, dropped


def read_history(model: Path) -> list[dict[str, float]]:
    """The training history in a model's folder, a row per logged step; empty where there is none."""
    path = model / "history.json"
    found: list[dict[str, float]] = json.loads(path.read_text()) if path.exists() else []
    return found

"""Scores each candidate given its context and persona."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.records import Candidates


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class RewardConfig(StageConfig):
    """Which reward model, and whether it sees the persona."""

    kind: Literal["persona-likelihood"] = Field("persona-likelihood", description="Reward model.")
    model: ModelConfig = Field(default_factory=ModelConfig)
    persona: Literal["on", "off"] = Field("on", description="'off' is the user-agnostic baseline (3.3).")
    batch_size: int = Field(16, ge=1, description="Sequences computed at a time.")


def run(candidates: Input[Candidates], scored: Output[Candidates], config: RewardConfig) -> None:
    """Scores each candidate given its context and persona."""
    raise RuntimeError("being written")

"""Compares the trained model with the logged answers on held-out turns (WildChat UserEval)."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.records import Axis, Conversation, Mode, Opponent, Pair, Persona, Verdict


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class EvaluateConfig(StageConfig):
    """Who answers, who judges, against whom."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    judge: EngineConfig = Field(default_factory=EngineConfig)
    axes: tuple[Axis, ...] = Field(("personalization", "instruction-following", "usereval"), description="3.4.")
    modes: tuple[Mode, ...] = Field(("context-only", "persona-guided"), description="Inference settings (3.4).")
    opponents: tuple[Opponent, ...] = Field(("log",), description="The answer in the log (3.4), or the base model's.")
    max_users: int = Field(100, ge=1, description="Evaluation users taken at most, by seed (3.4: 100).")
    max_turns: int | None = Field(None, ge=1, description="Held-out turns taken at most, by seed; null takes all.")
    batch_size: int = Field(16, ge=1, description="Sequences computed at a time.")
    resamples: int = Field(2000, ge=100, description="Bootstrap resamples of users for the intervals.")


def run(conversations: Input[Conversation], personas: Input[Persona], model: Input[Pair], verdicts: Output[Verdict], config: EvaluateConfig) -> None:
    """Compares the trained model with the logged answers on held-out turns (WildChat UserEval)."""
    raise RuntimeError("being written")

"""Draws N answers to each request, given the context and the user's persona."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.records import Candidates, Conversation, Label, Persona, Turn


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class SampleConfig(StageConfig):
    """Who answers, how often, and which turns."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    n: int = Field(64, ge=2, description="Answers per prompt (3.1: N = 64).")
    labels: tuple[Label, ...] = Field(("initial", "new"), description="Turns whose request is a prompt (2.4).")
    max_prompts: int | None = Field(None, ge=1, description="Prompts taken at most, by seed; null takes all.")
    keep_cut: bool = Field(False, description="Keep answers that ended by length instead of dropping them.")


def run(conversations: Input[Conversation], turns: Input[Turn], personas: Input[Persona], samples: Output[Candidates], config: SampleConfig) -> None:
    """Draws N answers to each request, given the context and the user's persona."""
    raise RuntimeError("being written")

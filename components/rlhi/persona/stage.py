"""Infers at most five points on how a user likes to be answered, from the user's own messages."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.records import Conversation, Persona


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class PersonaConfig(StageConfig):
    """Who infers personas, and from how much."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    sampling: SamplingConfig = Field(default_factory=lambda: SamplingConfig(max_tokens=256))
    max_points: int = Field(5, ge=1, description="Points of a persona at most (Fig. 7).")
    history_tokens: int = Field(3072, ge=32, description="User messages read, newest first, in tokens.")


def run(conversations: Input[Conversation], personas: Output[Persona], config: PersonaConfig) -> None:
    """Infers at most five points on how a user likes to be answered, from the user's own messages."""
    raise RuntimeError("being written")

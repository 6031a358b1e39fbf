"""Regenerates assistant turns with the policy (WildLlamaChat)."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.records import Conversation, Turn


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class ReconstructConfig(StageConfig):
    """Which policy, and how it samples."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    only_before_feedback: bool = Field(
        False, description="Regenerate no further than the last answer that a user gave feedback on, which is all that rewrite reads."
    )


def run(conversations: Input[Conversation], turns: Input[Turn], reconstructed: Output[Conversation], config: ReconstructConfig) -> None:
    """Regenerates assistant turns with the policy (WildLlamaChat)."""
    raise RuntimeError("being written")

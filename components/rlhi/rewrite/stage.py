"""Revises the answer that a user was not satisfied with, by the user's own follow-up."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.records import Candidates, Conversation, Persona, Turn


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class RewriteConfig(StageConfig):
    """Who rewrites, and from what."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    from_scratch: bool = Field(False, description="Answer anew, without the earlier answer and the follow-up (3.3).")


def run(conversations: Input[Conversation], turns: Input[Turn], personas: Input[Persona], rewrites: Output[Candidates], config: RewriteConfig) -> None:
    """Revises the answer that a user was not satisfied with, by the user's own follow-up."""
    raise RuntimeError("being written")

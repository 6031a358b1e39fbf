"""Turns raw chat logs into conversations with users and a split."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.records import Conversation


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class IngestConfig(StageConfig):
    """The filters of C.1 and the split."""

    language: str | None = Field("English", description="Keep conversations of this language; null keeps all (C.1).")
    max_turns: int = Field(10, ge=1, description="Longest conversation, in exchanges of two messages (C.1).")
    min_conversations: int = Field(3, ge=1, description="Users with fewer are dropped (C.1).")
    max_conversations: int = Field(100, ge=1, description="Users with more are dropped (C.1).")
    eval_share: float = Field(0.2, ge=0, le=1, description="Share of users kept for evaluation (3.1).")
    eval_min_conversations: int = Field(10, ge=2, description="Evaluation users with fewer are dropped (3.4).")
    held_out: int = Field(5, ge=1, description="Last conversations of an evaluation user that are held out (3.4).")
    max_users: int | None = Field(None, ge=1, description="Users taken at most, by seed; null takes all.")


def run(source: str, conversations: Output[Conversation], config: IngestConfig) -> None:
    """Turns raw chat logs into conversations with users and a split."""
    raise RuntimeError("being written")

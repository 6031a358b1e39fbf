"""Labels each follow-up: new, re-attempt with or without feedback, or positive feedback."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.records import Conversation, Turn


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class ClassifyConfig(StageConfig):
    """Who classifies, and what a follow-up is compared with."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    initial: Literal["latest-new", "first", "previous"] = Field(
        "latest-new", description="The request that a follow-up is compared with; the paper leaves it open (Fig. 6)."
    )
    calibrate: bool = Field(False, description="Take away each label's score on an empty request: for small models.")


def run(conversations: Input[Conversation], turns: Output[Turn], config: ClassifyConfig) -> None:
    """Labels each follow-up: new, re-attempt with or without feedback, or positive feedback."""
    raise RuntimeError("being written")

"""Settings of the training of a reward model."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED, ModelConfig, StageConfig


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class TrainingConfig(StageConfig):
    """The base model and how it is trained."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    held_out: float = Field(default=0.1, gt=0, lt=1, description="Share of the users, or first messages, held out.")
    learning_rate: float = Field(default=1e-4, gt=0, description="TRL's; ten times as much for a few layers only.")
    batch_size: int = Field(default=16, ge=1, description="Pairs per step.")
    micro_batch_size: int = Field(default=4, ge=1, description="Pairs computed at a time.")
    epochs: float = Field(default=1.0, gt=0, description="Passes over the pairs.")
    max_tokens: int = Field(default=1024, ge=32, description="Longest input; longer ones lose their oldest turns.")
    lora_rank: int = Field(default=16, ge=1, description="Rank of the adapter.")
    layers: int | None = Field(
        default=None, ge=1, description="Last layers that get an adapter; null: all. A few are much faster."
    )

"""Trains a LoRA adapter by persona-conditioned DPO on the pairs (eq. 1)."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.records import Pair


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class DpoConfig(StageConfig):
    """The policy and how it is trained."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    loss: Literal["dpo", "sft"] = Field("dpo", description="'sft' trains on the chosen answers only (3.3).")
    beta: float = Field(0.1, gt=0, description="Sharpness of the preference; the paper gives it for online DPO only.")
    learning_rate: float = Field(5e-7, gt=0, description="3.2 sweeps 5e-7 and 1e-6.")
    batch_size: int = Field(64, ge=1, description="Pairs per step, over all devices (3.2: 64 offline, 32 online).")
    micro_batch_size: int = Field(2, ge=1, description="Pairs computed at a time.")
    epochs: float = Field(1.0, gt=0, description="Passes over the pairs.")
    max_tokens: int = Field(4096, ge=64, description="Pairs with a longer prompt and answer are dropped with a reason.")
    lora_rank: int = Field(16, ge=1, description="Rank of the adapter.")


def run(pairs: Input[Pair], model: Output[Pair], config: DpoConfig) -> None:
    """Trains a LoRA adapter by persona-conditioned DPO on the pairs (eq. 1)."""
    raise RuntimeError("being written")

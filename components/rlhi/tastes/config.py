"""Settings of the experiment."""

from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED, ModelConfig, SamplingConfig, StageConfig, as_json, digest
from rlhi.dpo.config import DpoConfig
from rlhi.tastes.people import DIMENSIONS
from rlhi.tastes.rule import Dimension

Arm = Literal["base", "user-based", "user-agnostic", "sft"]
TRAINED: tuple[Arm, ...] = ("user-based", "user-agnostic", "sft")


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class TrainingConfig:
    """How an arm is trained: all arms alike but for the loss, and for whose reward the pairs are by."""

    steps: int = Field(default=100, ge=1)
    batch_size: int = Field(default=4, ge=2, description="Pairs of a step: half as many requests, each with twins.")
    learning_rate: float = Field(default=2e-3, gt=0)
    beta: float = Field(default=0.1, gt=0)
    lora_rank: int | None = Field(default=16, ge=1)
    sft_weight: float = Field(default=0.2, ge=0, description="Of the likelihood of chosen answers, beside DPO's loss.")
    people: int = Field(default=64, ge=16, description="Training users.")


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class TastesConfig(StageConfig):
    """One seed of the experiment. The seed draws users, pairs, wordings and what is tested."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    rates: tuple[float, ...] = Field(
        default=(1e-3, 2e-3), min_length=1, description="Learning rates that every arm tries on validation users."
    )
    dimensions: tuple[Dimension, ...] = Field(
        default=DIMENSIONS, min_length=1, description="What people mind; in the others all answers are alike."
    )
    users: int = Field(default=10, ge=1, description="Test users of each of the eight tastes.")
    turns: int = Field(default=1, ge=1, description="Requests of each test user.")
    sampling: SamplingConfig = Field(default_factory=lambda: SamplingConfig(max_tokens=160))
    batch_size: int = Field(default=120, ge=1, description="Answers computed at a time.")
    contrasts: int = Field(default=24, ge=8, description="Requests for each teacher-forced contrast.")
    resamples: int = Field(default=2000, ge=100, description="Resamples of users for the intervals.")

    def dpo(self, arm: Arm) -> DpoConfig:
        """What the trainer is told for an arm."""
        own = self.training
        loss: dict[str, Any] = {"loss_type": ("sigmoid",)}
        if arm == "sft":
            loss = {"loss_type": ("sft",)}
        elif own.sft_weight:
            loss = {"loss_type": ("sigmoid", "sft"), "loss_weights": (1.0, own.sft_weight)}
        return DpoConfig(
            seed=self.seed,
            model=self.model,
            beta=own.beta,
            learning_rate=own.learning_rate,
            batch_size=own.batch_size,
            lora_rank=own.lora_rank,
            validation_share=0,
            gradient_checkpointing=False,
            row_tokens=6144,
            checkpoint_every=1_000_000,
            **loss,
        )

    def training_name(self, arm: Arm) -> str:
        """Names all that the trained weights of an arm hang on."""
        if arm == "base":
            return f"base-{self.seed}"
        said = [as_json(self.dpo(arm)), as_json(self.training), self.dimensions]
        return f"{arm}-{self.seed}-{digest(repr(said))[:8]}"

    @property
    def measuring_name(self) -> str:
        """Names all that the measurements of trained weights hang on."""
        said = [self.dimensions, self.users, self.turns, as_json(self.sampling), self.contrasts, self.model.id]
        return f"measured-{digest(repr(said))[:8]}"

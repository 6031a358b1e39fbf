"""Settings of rip: the rules for each source of pairs, and the guards."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED, EngineConfig, StageConfig
from rlhi.errors import InputError
from rlhi.questions import Method
from rlhi.records import AnswerSource


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class Thresholds:
    """The three rules of C.2 with absolute thresholds. Those of reward hold for one reward model's scale."""

    min_rejected_length: float = Field(
        default=1878, ge=0, allow_inf_nan=False, description="Characters of the rejected answer (C.2: 1878)."
    )
    min_rejected_reward: float = Field(
        default=-1.0, allow_inf_nan=False, description="Reward of the rejected answer (C.2: -1)."
    )
    max_gap: float = Field(
        default=1.0, ge=0, allow_inf_nan=False, description="Reward of the chosen less that of the rejected (C.2: 1)."
    )


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class Quantiles:
    """The same three rules with quantiles of this run's own pairs, by default those that RIP's sweep arrives at."""

    min_rejected_length: float = Field(
        default=0.5, ge=0, le=1, description="Quantile of the rejected answers' lengths; 0 keeps all."
    )
    min_rejected_reward: float = Field(
        default=0.6, ge=0, le=1, description="Quantile of the rejected answers' rewards; 0 keeps all."
    )
    max_gap: float = Field(default=0.5, ge=0, le=1, description="Quantile of the gaps; 1 keeps all.")


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class Rules:
    """Which pairs of one source stay."""

    thresholds: Literal["absolute", "quantile", "off"] = Field(
        default="absolute", description="Which thresholds the three rules take (C.2: absolute)."
    )
    absolute: Thresholds = Field(default_factory=Thresholds)
    quantile: Quantiles = Field(default_factory=Quantiles)


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class RipConfig(StageConfig):
    """Rules for pairs with rewrites and for pairs of samples, and what guards the pairs beside them."""

    rewrite: Rules = Field(default_factory=Rules)
    sample: Rules = Field(default_factory=Rules)
    scale: str = Field(
        default="Athene-RM-8B",
        min_length=1,
        description="Scale of rewards that the absolute thresholds are meant for (C.2: Athene's); others are refused.",
    )
    keep_cut: bool = Field(default=False, description="Take answers that ended by length into pairs.")
    near_duplicates: float | None = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Similarity of a user's prompts from which only the first is kept; null keeps all.",
    )
    check_follow_ups: bool = Field(
        default=False, description="Ask a model whether follow-ups are safe to learn from; drop those that are not."
    )
    engine: EngineConfig = Field(default_factory=EngineConfig)
    method: Method = Field(
        default="choose", description="How the check is answered: by log-probability, or as text where there is none."
    )
    max_per_conversation: int | None = Field(
        default=None, ge=1, description="Pairs of a conversation taken at most, by seed; null takes all."
    )
    max_per_user: int | None = Field(
        default=None, ge=1, description="Pairs of a user taken at most, by seed; null takes all."
    )
    max_users: int | None = Field(
        default=None,
        ge=1,
        description="Users whose pairs are taken at most, those with the most pairs, by seed where they have as many"
        " (4.2, Fig. 4: 10); null takes all.",
    )
    max_pairs: int | None = Field(
        default=None,
        ge=1,
        description="Pairs taken at most, by seed; equal to min_pairs, runs learn from as many pairs or stop (Fig. 4).",
    )
    min_pairs: int = Field(
        default=1, ge=1, description="Fewer pairs than this stop the run, with the funnel and advice."
    )

    def rules(self, source: AnswerSource) -> Rules:
        """The rules for pairs whose chosen answer is from ``source``."""
        return self.rewrite if source == "rewrite" else self.sample

    @property
    def asks_models(self) -> bool:
        """Only to check follow-ups."""
        return self.check_follow_ups

    def check(self) -> None:
        """Refuses caps of which one leaves the other nothing to do, and a cap under the floor."""
        of_user, of_conversation = self.max_per_user, self.max_per_conversation
        if of_user is not None and of_conversation is not None and of_conversation > of_user:
            raise InputError(
                f"rip.max_per_conversation={of_conversation} is above rip.max_per_user={of_user} and so would never "
                "cut; make it smaller, or null"
            )
        if self.max_pairs is not None and self.max_pairs < self.min_pairs:
            raise InputError(
                f"rip.max_pairs={self.max_pairs} is under rip.min_pairs={self.min_pairs}, so that every run would stop;"
                " make it larger, or null"
            )

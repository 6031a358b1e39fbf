"""Forms preference pairs and keeps those of high quality (RIP)."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.records import Candidates, Pair


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class RipConfig(StageConfig):
    """Thresholds, absolute (the paper's, on Athene's scale) or as quantiles of this run's pairs."""

    thresholds: Literal["absolute", "quantile", "off"] = Field("absolute", description="How the three rules cut (C.2).")
    min_rejected_length: float = Field(1878, ge=0, description="Characters, or a quantile: the rejected answer's length.")
    min_rejected_reward: float = Field(-1.0, description="Reward, or a quantile: the rejected answer's.")
    max_gap: float = Field(1.0, ge=0, description="Reward difference, or a quantile, between chosen and rejected.")
    min_pairs: int = Field(1, ge=1, description="Fewer pairs than this stop the run, with the funnel.")


def run(scored: Input[Candidates], pairs: Output[Pair], config: RipConfig) -> None:
    """Forms preference pairs and keeps those of high quality (RIP)."""
    raise RuntimeError("being written")

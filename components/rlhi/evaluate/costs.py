"""What a run asked of models and what that cost, stage by stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """What one stage asked: replies and scored rows, tokens, and dollars where a price is known; null is unknown."""

    stage: str
    asked: float
    stored: float
    tokens_in: float | None
    tokens_out: float | None
    dollars: float | None


def costs(measured: Mapping[str, Mapping[str, float]]) -> list[Cost]:
    """The stages that asked a model anything, from their metrics (`rlhi.engine.tally.metrics`)."""
    found = [_cost(stage, metrics) for stage, metrics in measured.items()]
    return [each for each in found if each.asked or each.stored]


def total(found: Sequence[Cost]) -> float | None:
    """Dollars of all stages; null where no price is known."""
    known = [each.dollars for each in found if each.dollars is not None]
    return sum(known) if known else None


def _cost(stage: str, metrics: Mapping[str, float]) -> Cost:
    return Cost(
        stage,
        asked=metrics.get("replies/asked", 0) + metrics.get("scores/asked", 0),
        stored=metrics.get("replies/stored", 0) + metrics.get("scores/stored", 0),
        tokens_in=metrics.get("tokens/prompt"),
        tokens_out=metrics.get("tokens/generated"),
        dollars=metrics.get("cost/usd"),
    )

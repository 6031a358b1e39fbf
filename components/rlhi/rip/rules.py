"""RIP's three rules (C.2): on the rejected answer's length, on its reward, and on the gap between both rewards.

A *small* gap is kept, since a large one tells of a prompt that can be read in several ways.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlhi.errors import InputError
from rlhi.records import AnswerSource, Pair, Reason
from rlhi.rip.config import Quantiles, RipConfig, Rules

RuleName = Literal["length", "reward", "gap"]
Values = Mapping[RuleName, np.ndarray]  # what each rule looks at
SOURCES: tuple[AnswerSource, ...] = ("rewrite", "sample")
UNKNOWN = "unknown"  # the scale of rewards whose stage did not say


@dataclass(frozen=True, slots=True)
class Limits:
    """Where the three rules cut: characters, reward, difference of rewards. What lies on a limit stays."""

    min_length: float
    min_reward: float
    max_gap: float


def gap(pair: Pair) -> float:
    """By how much the chosen answer's reward is higher."""
    return pair.chosen_reward - pair.rejected_reward


def by_source(pairs: Iterable[Pair]) -> dict[AnswerSource, list[Pair]]:
    """The pairs of each source that there is."""
    rows = list(pairs)
    found = {source: [pair for pair in rows if pair.source == source] for source in SOURCES}
    return {source: own for source, own in found.items() if own}


def limits_of(pairs: Sequence[Pair], rules: Rules) -> Limits | None:
    """The limits that ``rules`` set for ``pairs``, all of one source; None where the rules are off."""
    if rules.thresholds == "off":
        return None
    if rules.thresholds == "quantile":
        return at_quantiles(pairs, rules.quantile)
    return Limits(rules.absolute.min_rejected_length, rules.absolute.min_rejected_reward, rules.absolute.max_gap)


def values_of(pairs: Sequence[Pair]) -> Values:
    """What each rule looks at: characters, reward, difference of rewards (n each)."""
    return {
        "length": np.array([len(pair.rejected) for pair in pairs], float),
        "reward": np.array([pair.rejected_reward for pair in pairs]),
        "gap": np.array([gap(pair) for pair in pairs]),
    }


def at_quantiles(pairs: Sequence[Pair], quantiles: Quantiles) -> Limits:
    """The limits at quantiles of ``pairs``, of which there is at least one."""
    return quantile_limits(values_of(pairs), quantiles)


def quantile_limits(values: Values, quantiles: Quantiles) -> Limits:
    """The same of what the rules look at."""
    return Limits(
        float(np.quantile(values["length"], quantiles.min_rejected_length)),
        float(np.quantile(values["reward"], quantiles.min_rejected_reward)),
        float(np.quantile(values["gap"], quantiles.max_gap)),
    )


def refuse(pair: Pair, limits: Limits) -> Reason | None:
    """The first rule that a pair breaks."""
    if len(pair.rejected) < limits.min_length:
        return "rejected_too_short"
    if pair.rejected_reward < limits.min_reward:
        return "rejected_reward_too_low"
    return "gap_too_large" if gap(pair) > limits.max_gap else None


def refused(pairs: Iterable[Pair], limits: Mapping[AnswerSource, Limits | None]) -> dict[str, Reason]:
    """By id, the rule that each pair breaks, by the limits of its source."""
    found: dict[str, Reason] = {}
    for pair in pairs:
        own = limits.get(pair.source)
        reason = None if own is None else refuse(pair, own)
        if reason is not None:
            found[pair.id] = reason
    return found


def check(sources: Iterable[AnswerSource], scale: str, config: RipConfig) -> None:
    """Refuses rules that cannot be meant, before anything is filtered.

    ``sources`` are those that the candidates have, ``scale`` names that of their rewards.

    Raises:
        InputError: absolute thresholds for rewards of another scale, or rules for a source that is not there.
    """
    present = set(sources)
    for source in SOURCES:
        rules = config.rules(source)
        if source not in present and present and rules != Rules():
            raise InputError(f"rip.{source} is set, but none of the answers is a {source}; set rip.{min(present)}")
        if source in present and rules.thresholds == "absolute" and scale != config.scale:
            raise InputError(
                f"rip.{source}.thresholds=absolute: the thresholds are meant for rewards on the scale of "
                f"{config.scale!r}, these are on {scale!r}; set rip.{source}.thresholds=quantile, or, if you chose "
                f"rip.{source}.absolute for these, rip.scale={scale!r}"
            )

"""How many pairs survive the three rules at which thresholds, and which quantiles to take.

The proposal goes from RIP's quantiles (0.5, 0.6, 0.5) towards no filter, all three in step, and stops at the strictest
that leaves enough pairs. `strictness` says how far it got: 1 is RIP's, 0 keeps all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlhi.records import AnswerSource, Pair
from rlhi.rip.config import Quantiles, Thresholds
from rlhi.rip.rules import Limits, RuleName, Values, gap, quantile_limits, refused, values_of

RULES: tuple[RuleName, ...] = ("length", "reward", "gap")
LEVELS = tuple(round(0.1 * step, 1) for step in range(10))  # shares of pairs that each rule refuses in the table
STEPS = 20  # of strictness


@dataclass(frozen=True, slots=True)
class Count:
    """How many pairs ``limits`` leave: each rule alone, and all three together."""

    limits: Limits
    alone: Mapping[RuleName, int]
    jointly: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """Quantiles that leave ``kept`` pairs of all sources."""

    strictness: float
    quantiles: Quantiles
    kept: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """What there is to know of the pairs of one source.

    ``levels`` holds, for each of `LEVELS`, what is left where each rule refuses that share of pairs; ``steps`` how many
    are left at each strictness; ``shown`` the limits that are looked at, with what they leave.
    """

    source: AnswerSource
    pairs: Sequence[Pair]
    levels: Mapping[float, Count]
    steps: Sequence[tuple[float, int]]
    paper: Count
    shown: Count | None


def measure(source: AnswerSource, pairs: Sequence[Pair], limits: Limits | None) -> Calibration:
    """The counts for ``pairs``, of which there is at least one; ``limits`` are looked at more closely."""
    values = values_of(pairs)
    paper = Thresholds()
    levels = {
        level: Quantiles(min_rejected_length=level, min_rejected_reward=level, max_gap=1 - level) for level in LEVELS
    }
    return Calibration(
        source=source,
        pairs=pairs,
        levels={level: _count(values, quantile_limits(values, own)) for level, own in levels.items()},
        steps=[(step, _count(values, quantile_limits(values, quantiles_at(step))).jointly) for step in strictnesses()],
        paper=_count(values, Limits(paper.min_rejected_length, paper.min_rejected_reward, paper.max_gap)),
        shown=None if limits is None else _count(values, limits),
    )


def propose(
    pairs: Mapping[AnswerSource, Sequence[Pair]], floor: int, left: Callable[[Sequence[Pair]], int] = len
) -> Proposal | None:
    """The strictest quantiles, the same for every source, that leave ``floor`` pairs; None where there are not as many.

    ``left`` says how many of the pairs that pass the rules are left in the end, after what comes behind them.
    """
    values = {source: values_of(own) for source, own in pairs.items()}
    every = [pair for own in pairs.values() for pair in own]
    for strictness in strictnesses()[::-1]:
        quantiles = quantiles_at(strictness)
        limits = {source: quantile_limits(own, quantiles) for source, own in values.items()}
        out = refused(every, limits)
        kept = left([pair for pair in every if pair.id not in out])
        if kept >= floor:
            return Proposal(strictness, quantiles, kept)
    return None


def settings(proposal: Proposal, sources: Sequence[AnswerSource]) -> list[str]:
    """The proposal as settings of a run."""
    values = proposal.quantiles
    return [
        setting
        for source in sources
        for setting in (
            f"rip.{source}.thresholds=quantile",
            f"rip.{source}.quantile.min_rejected_length={values.min_rejected_length:g}",
            f"rip.{source}.quantile.min_rejected_reward={values.min_rejected_reward:g}",
            f"rip.{source}.quantile.max_gap={values.max_gap:g}",
        )
    ]


def strictnesses() -> list[float]:
    """From 0, which keeps all, to 1, which is RIP's."""
    return [step / STEPS for step in range(STEPS + 1)]


def quantiles_at(strictness: float) -> Quantiles:
    """The quantiles that far from no filter towards RIP's."""
    rip = Quantiles()
    return Quantiles(
        min_rejected_length=round(strictness * rip.min_rejected_length, 3),
        min_rejected_reward=round(strictness * rip.min_rejected_reward, 3),
        max_gap=round(1 - strictness * (1 - rip.max_gap), 3),
    )


def thrown_out(pairs: Sequence[Pair], limits: Limits, rule: RuleName) -> list[Pair]:
    """The pairs that one rule refuses, whatever the others say; those next to the limit first."""
    by_rule: dict[RuleName, Callable[[Pair], float]] = {
        "length": lambda pair: limits.min_length - len(pair.rejected),
        "reward": lambda pair: limits.min_reward - pair.rejected_reward,
        "gap": lambda pair: gap(pair) - limits.max_gap,
    }
    beyond = by_rule[rule]
    return sorted((pair for pair in pairs if beyond(pair) > 0), key=beyond)


def _count(values: Values, limits: Limits) -> Count:
    passed = passes(values, limits)
    alone = {rule: int(passed[rule].sum()) for rule in RULES}
    return Count(limits, alone, int(np.logical_and.reduce([passed[rule] for rule in RULES]).sum()))


def passes(values: Values, limits: Limits) -> dict[RuleName, np.ndarray]:
    """Which pairs (n) each rule lets pass."""
    return {
        "length": values["length"] >= limits.min_length,
        "reward": values["reward"] >= limits.min_reward,
        "gap": values["gap"] <= limits.max_gap,
    }

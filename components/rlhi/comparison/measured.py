"""The figures of a comparison as rows, and as metrics of a run."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rlhi.comparison.compare import Comparison
from rlhi.evaluate.differences import Difference
from rlhi.evaluate.winrates import ALL, WinRate

ODD = re.compile(r"[^\w.-]+")  # what a name of a metric in MLflow may not hold, or not everywhere


@dataclass(frozen=True, slots=True)
class ArmFigure:
    """One figure of one arm, and how it differs from the baseline's; null is not measured, and of the baseline itself.

    ``name`` says what was measured: ``win_rate/OPPONENT/METRIC/MODE`` of evaluate, in ``part`` of the turns, or
    ``benchmark/SUITE``. Values are in [0, 1], bounds are of 95%; the difference is paired, over ``paired`` turns or
    items that both have, and ``p`` two-sided. ``count`` is turns or items, ``users`` null where nobody's were asked.
    """

    arm: str
    name: str
    part: str
    value: float | None
    low: float | None
    high: float | None
    count: int
    users: int | None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    paired: int | None = None


def rows(found: Comparison) -> list[ArmFigure]:
    """All figures, arm by arm."""
    differences = {(each.left, _key(each)): each for each in found.differences}
    return [
        _row(arm.name, rate, differences.get((arm.name, _key(rate))) if rate.part == ALL else None)
        for arm in found.arms
        for rate in arm.rates
    ]


def as_metrics(figures: Iterable[ArmFigure]) -> dict[str, float]:
    """``ARM/NAME`` with ``/low``, ``/high`` and ``/count``, and ``ARM/difference/NAME`` with bounds and ``/p``.

    A part of the turns stands behind the name. What was not measured is absent.
    """
    found: dict[str, float | None] = {}
    for each in figures:
        arm, end = ODD.sub("-", each.arm), "" if each.part == ALL else f"/{each.part}"
        name, apart = f"{arm}/{each.name}{end}", f"{arm}/difference/{each.name}{end}"
        found |= {name: each.value, f"{name}/low": each.low, f"{name}/high": each.high, f"{name}/count": each.count}
        found |= {apart: each.difference, f"{apart}/low": each.difference_low, f"{apart}/high": each.difference_high}
        found[f"{apart}/p"] = each.p
    return {name: float(value) for name, value in found.items() if value is not None}


def _key(each: WinRate | Difference) -> tuple[str, str | None, str]:
    return each.opponent, each.mode, each.metric


def _row(arm: str, rate: WinRate, apart: Difference | None) -> ArmFigure:
    name = f"win_rate/{rate.opponent}/{rate.metric}/{rate.mode}"
    own = (arm, name, rate.part, rate.rate, rate.low, rate.high, rate.turns, rate.users)
    if apart is None:
        return ArmFigure(*own)
    return ArmFigure(*own, apart.difference, apart.low, apart.high, apart.p, apart.turns)

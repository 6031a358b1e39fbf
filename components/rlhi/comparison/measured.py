"""The figures of a comparison as rows, and as metrics of a run."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rlhi.comparison.benchmarks import Apart, apart
from rlhi.comparison.beside import Seen
from rlhi.comparison.experiment import Experiment
from rlhi.evaluate.differences import Difference
from rlhi.evaluate.tables import SETTINGS
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


def rows(experiment: Experiment) -> list[ArmFigure]:
    """All figures: win rates arm by arm, then benchmarks."""
    found = experiment.found
    differences = {(each.left, _key(each)): each for each in found.differences}
    rates = [
        _of_rate(arm.name, rate, differences.get((arm.name, _key(rate))) if rate.part == ALL else None)
        for arm in found.arms
        for rate in arm.rates
    ]
    return [*rates, *(each for seen in experiment.seen for each in _of_answers(seen, experiment))]


def apart_of(seen: Seen, suite: str, experiment: Experiment) -> Apart | None:
    """How an arm differs from the baseline in a benchmark; null where that is not measured, and of the baseline."""
    against = next((each.answered for each in experiment.seen if each.arm.name == experiment.baseline), None)
    if against is None or seen.answered is None or seen.arm.name == experiment.baseline:
        return None
    return apart(seen.answered, against, suite, experiment.bootstrap)


def as_metrics(figures: Iterable[ArmFigure]) -> dict[str, float]:
    """``ARM/NAME`` with ``/low`` and ``/high``, and ``ARM/difference/NAME`` with ``/low``, ``/high`` and ``/p``.

    Of all turns in the paper's two settings, and of benchmarks; parts and controls are in the rows only, since so many
    figures are in nobody's view. What was not measured is absent.
    """
    found: dict[str, float | None] = {}
    for each in figures:
        if each.part == ALL and _is_of_the_paper(each.name):
            arm = ODD.sub("-", each.arm)
            name, apart = f"{arm}/{each.name}", f"{arm}/difference/{each.name}"
            found |= {name: each.value, f"{name}/low": each.low, f"{name}/high": each.high}
            found |= {
                apart: each.difference,
                f"{apart}/low": each.difference_low,
                f"{apart}/high": each.difference_high,
            }
            found[f"{apart}/p"] = each.p
    return {name: float(value) for name, value in found.items() if value is not None}


def _is_of_the_paper(name: str) -> bool:
    return name.startswith("benchmark/") or name.rpartition("/")[2] in SETTINGS


def _key(each: WinRate | Difference) -> tuple[str, str | None, str]:
    return each.opponent, each.mode, each.metric


def _of_rate(arm: str, rate: WinRate, found: Difference | None) -> ArmFigure:
    name = f"win_rate/{rate.opponent}/{rate.metric}/{rate.mode}"
    own = ArmFigure(arm, name, rate.part, rate.rate, rate.low, rate.high, rate.turns, rate.users)
    return own if found is None else _differing(own, found, found.turns)


def _of_answers(seen: Seen, experiment: Experiment) -> Iterator[ArmFigure]:
    for suite, cell in ({} if seen.answered is None else seen.answered.cells).items():
        own = ArmFigure(seen.arm.name, f"benchmark/{suite}", ALL, cell.value, cell.low, cell.high, cell.count, None)
        found = apart_of(seen, suite, experiment)
        yield own if found is None else _differing(own, found, found.items)


def _differing(own: ArmFigure, found: Difference | Apart, paired: int) -> ArmFigure:
    told = replace(own, difference=found.difference, p=found.p, paired=paired)
    return replace(told, difference_low=found.low, difference_high=found.high)

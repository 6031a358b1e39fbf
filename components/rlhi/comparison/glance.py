"""The arms at one glance: the headline's win rates by axis, and how each arm differs from the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhi import paper
from rlhi.comparison.arms import Arm
from rlhi.comparison.benchmarks import Cell
from rlhi.comparison.beside import AXES, Seen, cell_of
from rlhi.comparison.compare import Comparison
from rlhi.comparison.methods import BASE
from rlhi.evaluate.differences import Difference
from rlhi.evaluate.winrates import ALL, WinRate

ALPHA = 0.05


@dataclass(frozen=True)
class Glance:
    """One arm. ``cells`` and the ``paper``'s percents are by axis; ``other`` are the cells in the other mode.

    ``holm`` is the p of the difference with all arms' tests accounted for; a difference is ``shown`` where that is
    under `ALPHA` and the interval leaves out zero. ``paper_apart`` is the paper's difference from its base, in points.
    """

    arm: Arm
    cells: Mapping[str, Cell]
    other: Mapping[str, Cell]
    paper: Mapping[str, float]
    apart: Difference | None
    holm: float | None
    paper_apart: float | None

    @property
    def shown(self) -> bool:
        """Whether a difference from the baseline is shown."""
        each = self.apart
        if each is None or each.low is None or each.high is None or self.holm is None:
            return False
        return self.holm < ALPHA and not each.low <= 0 <= each.high


def glances(seen: Sequence[Seen], found: Comparison, headline: WinRate | None) -> list[Glance]:
    """Every arm, evaluated or not, in order."""
    if headline is None:
        return []
    key = (headline.opponent, headline.metric, headline.mode)
    apart = {each.left: each for each in found.differences if (each.opponent, each.metric, each.mode) == key}
    adjusted = holm({name: each.p for name, each in apart.items() if each.p is not None})
    against = next((each.arm.method for each in seen if each.arm.name == found.baseline), None)
    other = "context-only" if headline.mode != "context-only" else "persona-guided"
    return [
        Glance(
            arm=each.arm,
            cells=_cells(each, headline, headline.mode),
            other=_cells(each, headline, other),
            paper=_published(each, headline),
            apart=apart.get(each.arm.name),
            holm=adjusted.get(each.arm.name),
            paper_apart=_published_apart(each, headline) if against == BASE else None,
        )
        for each in seen
    ]


def holm(tests: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values: the chance of as small a p in any of the tests, were none of them anything."""
    found: dict[str, float] = {}
    least = 0.0
    for place, name in enumerate(sorted(tests, key=tests.__getitem__)):
        least = max(least, min(1.0, tests[name] * (len(tests) - place)))
        found[name] = least
    return found


def _cells(seen: Seen, headline: WinRate, mode: str) -> dict[str, Cell]:
    own = [rate for rate in seen.rates if (rate.opponent, rate.mode, rate.part) == (headline.opponent, mode, ALL)]
    cells = {rate.metric: cell_of(rate) for rate in own if rate.metric in AXES}
    return {metric: cell for metric, cell in cells.items() if cell is not None}


def _published(seen: Seen, headline: WinRate) -> dict[str, float]:
    """The paper's of the same method and mode, which are against the log."""
    if headline.opponent != "log" or seen.arm.users is not None:
        return {}
    known = {(method, mode): figures for method, mode, figures in paper.WIN_RATES}
    return dict(zip(AXES, known.get((seen.arm.method or "", headline.mode), ()), strict=False))


def _published_apart(seen: Seen, headline: WinRate) -> float | None:
    own = _published(seen, headline).get(headline.metric)
    base = next((figures for method, mode, figures in paper.WIN_RATES if (method, mode) == (BASE, headline.mode)), None)
    if own is None or base is None or seen.arm.method == BASE:
        return None
    return own - base[AXES.index(headline.metric)]

"""Figures 3 and 4 of the paper with ours: what SFT and the missing filter cost, and what few users cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from rlhi import paper
from rlhi.comparison.arms import Arm
from rlhi.comparison.benchmarks import Cell
from rlhi.comparison.beside import AXES, STANDARD, Seen, cell_of, standard
from rlhi.comparison.methods import BASE, RECIPES, SFT_REWARDS, SFT_REWRITES, UNFILTERED
from rlhi.evaluate.winrates import ALL, WinRate

AXIS = "usereval"
ABLATED = (SFT_REWRITES, SFT_REWARDS, UNFILTERED)  # what Fig. 3 shows that Table 2 does not
SAME_SIZE = 0.1  # by how much of the larger one data sets of one size may differ


@dataclass(frozen=True, slots=True)
class Bar:
    """One method of Fig. 3, and ours of it, null where not run. ``gains`` are the points that the paper's text gives.

    ``user_paper`` and ``standard_paper`` are percents of Tables 2 and 3, null for methods that are only in the picture.
    """

    method: str
    arm: str | None
    user: Cell | None
    standard: Cell | None
    user_paper: float | None
    standard_paper: float | None
    gains: tuple[float, float] | None

    @property
    def label(self) -> str:
        """What stands beside the bar."""
        return self.arm or self.method

    @property
    def fills(self) -> str | None:
        """The recipe that would fill it."""
        return RECIPES.get(self.method) if self.arm is None else None


@dataclass(frozen=True, slots=True)
class Crowd:
    """An arm of Fig. 4: the pairs it was trained on, those of how many users, and its win rate."""

    arm: str
    pairs: int
    users: int
    capped: bool
    cell: Cell


def bars(seen: Sequence[Seen], headline: WinRate | None) -> list[Bar]:
    """Fig. 3, with the base model on top; empty where none of ours is fine-tuned or unfiltered."""
    found = [_bar(method, each, headline) for method in (BASE, *paper.ABLATION) for each in _of(method, seen)]
    return found if any(each.arm is not None and each.method in ABLATED for each in found) else []


def crowds(seen: Sequence[Seen], headline: WinRate | None) -> list[Crowd]:
    """Fig. 4: the arms whose users were capped, and those of the same method that were not; empty without both."""
    capped = {each.arm.method for each in seen if each.arm.users is not None}
    found = []
    for each in seen:
        cell, data = _user(each, headline), _data(each.arm)
        if each.arm.method in capped and each.arm.method is not None and cell is not None and data is not None:
            found.append(Crowd(each.arm.name, *data, each.arm.users is not None, cell))
    return found if {each.capped for each in found} == {True, False} else []


def unequal(found: Sequence[Crowd]) -> bool:
    """Whether the data sets are not of about one size, so that more than the users differs."""
    sizes = [each.pairs for each in found]
    return bool(sizes) and max(sizes) - min(sizes) > SAME_SIZE * max(sizes)


def _data(arm: Arm) -> tuple[int, int] | None:
    """Pairs and their users: those trained on or, without the model, those that could have been."""
    if arm.trained is not None and arm.trained.pairs is not None and arm.trained.users is not None:
        return int(arm.trained.pairs), arm.trained.users
    return None if arm.learned is None else (arm.learned.pairs, arm.learned.users)


def _of(method: str, seen: Sequence[Seen]) -> Sequence[Seen | None]:
    return [each for each in seen if each.arm.method == method and each.arm.users is None] or [None]


def _bar(method: str, seen: Seen | None, headline: WinRate | None) -> Bar:
    mode = headline.mode if headline is not None else "persona-guided"
    rates = {(name, own): figures for name, own, figures in paper.WIN_RATES}
    users, items = rates.get((method, mode)), dict(paper.STANDARD).get(method)
    mean = None if seen is None else standard(seen)
    return Bar(
        method=method,
        arm=None if seen is None else seen.arm.name,
        user=None if seen is None else _user(seen, headline),
        standard=None if mean is None else Cell(mean, None, None, 0),
        user_paper=None if users is None else users[AXES.index(AXIS)],
        standard_paper=None if items is None else (items[STANDARD[0]] + items[STANDARD[2]]) / 2,
        gains=paper.GAINS.get(method),
    )


def _user(seen: Seen, headline: WinRate | None) -> Cell | None:
    if headline is None:
        return None
    key = (headline.opponent, headline.mode, AXIS, ALL)
    return next(
        (cell_of(rate) for rate in seen.rates if (rate.opponent, rate.mode, rate.metric, rate.part) == key), None
    )

"""An evaluation's figures as tables: Tables 2 and 5 with ours on top of the paper's, by part of the turns, by user."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from rlhi import paper
from rlhi.evaluate.differences import Difference
from rlhi.evaluate.results import Results
from rlhi.evaluate.winrates import ALL, WinRate, judged
from rlhi.evaluate.winrates import by_user as scores_by_user
from rlhi.records import Axis, Mode, Opponent, TurnKind

SETTINGS: tuple[Mode, ...] = ("context-only", "persona-guided")  # the paper's two; other modes are controls
AXES: tuple[Axis, ...] = get_args(Axis)
PARTS: tuple[str, ...] = (*get_args(TurnKind), ALL)


@dataclass(frozen=True, slots=True)
class Row:
    """A model in one inference setting. ``cells`` are rates of this evaluation, or else percents of the paper."""

    model: str
    mode: str
    cells: tuple[WinRate | float | None, ...]
    ours: bool


def table_2(arms: Mapping[str, Sequence[WinRate]]) -> list[Row]:
    """Personalization, instruction-following and usereval over all turns; ``arms`` are our models by name."""
    return [*_ours(arms, AXES, _axis), *_papers(paper.WIN_RATES)]


def table_5(arms: Mapping[str, Sequence[WinRate]]) -> list[Row]:
    """Usereval on initial turns, on follow-up turns, and on all."""
    return [*_ours(arms, PARTS, _part), *_papers(paper.TURN_WIN_RATES)]


def _axis(rate: WinRate) -> str | None:
    return rate.metric if rate.part == ALL else None


def _part(rate: WinRate) -> str | None:
    return rate.part if rate.metric == "usereval" else None


def _ours(
    arms: Mapping[str, Sequence[WinRate]], columns: Sequence[str], column: Callable[[WinRate], str | None]
) -> Iterable[Row]:
    """The rows of models that were compared with the log, as the paper's were."""
    for name, rates in arms.items():
        for mode in SETTINGS:
            own = {column(rate): rate for rate in rates if (rate.opponent, rate.mode) == ("log", mode)}
            if any(name in own for name in columns):
                yield Row(name, mode, tuple(own.get(each) for each in columns), ours=True)


def _papers(rows: Iterable[tuple[str, str, tuple[float, float, float]]]) -> Iterable[Row]:
    return (Row(model, mode, values, ours=False) for model, mode, values in rows)


def without_controls(rates: Sequence[WinRate]) -> list[WinRate]:
    """The rates of the paper's two settings."""
    return [rate for rate in rates if rate.mode in SETTINGS]


def by_comparison(rates: Sequence[WinRate]) -> dict[tuple[Opponent, Mode], list[WinRate]]:
    """The rates of each opponent and mode together, in the order in which these first come."""
    found: dict[tuple[Opponent, Mode], list[WinRate]] = {}
    for rate in rates:
        found.setdefault((rate.opponent, rate.mode), []).append(rate)
    return found


def by_sides(differences: Sequence[Difference]) -> dict[tuple[str, str], list[Difference]]:
    """The differences of each two sides together."""
    found: dict[tuple[str, str], list[Difference]] = {}
    for each in differences:
        found.setdefault((each.left, each.right), []).append(each)
    return found


def by_part(rates: Sequence[WinRate], headline: WinRate | None) -> list[WinRate]:
    """The headline's comparison over all turns, its kinds of turns, and the users of each trait (Tables 5 and 1)."""
    if headline is None:
        return []
    key = (headline.opponent, headline.mode, headline.metric)
    return [rate for rate in rates if (rate.opponent, rate.mode, rate.metric) == key and rate.asked]


def by_user(results: Results, headline: WinRate | None) -> dict[str, list[float]]:
    """Each user's turn scores in the headline's comparison."""
    if headline is None:
        return {}
    outcomes = judged(results.verdicts).get((headline.opponent, headline.mode, headline.metric), [])
    return scores_by_user((each.user_id, each.score) for each in outcomes if each.score is not None)

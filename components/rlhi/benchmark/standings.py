"""Judgements as figures: how a model stands against the opponent in each pairwise suite, by this judge (3.4, Table 3).

Null judgements are in no rate: nobody is right or wrong there, as in a problem without an answer. How many they are,
and why, stands beside each rate, and how many items the rate is over.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rlhi.analyze.estimates import Bootstrap
from rlhi.benchmark.alpaca_eval.winrates import Judged, length_controlled, raw
from rlhi.benchmark.arena_hard.score import Game, score, style_controlled
from rlhi.benchmark.arena_hard.style import style_of
from rlhi.benchmark.contests import Judgement
from rlhi.benchmark.rates import Rate
from rlhi.paper import STANDARD

Pairwise = Literal["alpaca-eval", "arena-hard"]
ODD = re.compile(r"[^\w.-]+")  # what a name of a metric in MLflow may not hold, or not everywhere: "/models/judge"
CONTROLLED: Mapping[Pairwise, str] = {"alpaca-eval": "length_controlled", "arena-hard": "style_controlled"}


@dataclass(frozen=True, slots=True)
class Standing:
    """The rate of a suite, the same at equal length or style, and what the judge did: ``judge`` is part of its name.

    ``disagreement`` is the share of items, among those whose two orders both have a winner, in which the winners
    differ; ``first_position`` the share of judgements with a winner that went to the answer shown first. Null is not
    measured.
    """

    suite: Pairwise
    judge: str
    rate: Rate
    controlled: Rate
    judgements: int
    unread: int
    missing: Mapping[str, int]
    disagreement: float | None
    first_position: float | None


def standings(judgements: Sequence[Judgement], judge: str, bootstrap: Bootstrap) -> list[Standing]:
    """One for each suite that was judged."""
    own = {suite: [each for each in judgements if each.suite == suite] for suite in CONTROLLED}
    return [_standing(suite, judge, rows, bootstrap) for suite, rows in own.items() if rows]


def _standing(suite: Pairwise, judge: str, rows: Sequence[Judgement], bootstrap: Bootstrap) -> Standing:
    rate, controlled = _alpaca_eval(rows, bootstrap) if suite == "alpaca-eval" else _arena_hard(rows, bootstrap)
    return Standing(
        suite=suite,
        judge=judge,
        rate=rate,
        controlled=controlled,
        judgements=len(rows),
        unread=sum(row.won is None and row.missing is None for row in rows),
        missing=dict(Counter(row.missing for row in rows if row.missing is not None)),
        disagreement=_disagreement(rows),
        first_position=_mean([float(_first(row) > 0.5) for row in rows if row.won not in (None, 0.5)]),
    )


def _alpaca_eval(rows: Sequence[Judgement], bootstrap: Bootstrap) -> tuple[Rate, Rate]:
    """Raw and length-controlled; of an item in both orders the mean of the two."""
    shares: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.won is not None:
            shares[row.item_id].append(row.won)
    lengths = {row.item_id: (len(row.answer), len(row.gold)) for row in rows}
    judged = [Judged(sum(own) / len(own), *lengths[item]) for item, own in shares.items()]
    return raw(judged, bootstrap), length_controlled(judged, bootstrap)


def _arena_hard(rows: Sequence[Judgement], bootstrap: Bootstrap) -> tuple[Rate, Rate]:
    """Score, and score at equal style."""
    games = [Game(row.item_id, row.won, row.weight) for row in rows if row.won is not None]
    styles = {row.item_id: (style_of(row.answer), style_of(row.gold)) for row in rows}
    return score(games, bootstrap), style_controlled(games, styles, bootstrap)


def _disagreement(rows: Sequence[Judgement]) -> float | None:
    winners: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if row.won is not None and row.won != 0.5:
            winners[row.item_id].append(row.won > 0.5)
    return _mean([float(own[0] != own[1]) for own in winners.values() if len(own) == 2])


def _first(row: Judgement) -> float:
    won = row.won or 0.0
    return won if row.order == "model-first" else 1 - won


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def as_metrics(found: Sequence[Standing]) -> dict[str, float]:
    """``win_rate/SUITE/JUDGE`` and what belongs to it; what was not measured is absent."""
    metrics: dict[str, float] = {}
    for each in found:
        name = f"win_rate/{each.suite}/{ODD.sub('-', each.judge)}"
        figures = {
            **_figures("", each.rate),
            **_figures(f"/{CONTROLLED[each.suite]}", each.controlled),
            "/disagreement": each.disagreement,
            "/first_position": each.first_position,
            "/items": float(each.rate.items),
            "/unread": float(each.unread),
            "/missing": float(sum(each.missing.values())),
        }
        metrics |= {f"{name}{end}": value for end, value in figures.items() if value is not None}
    return metrics


def _figures(name: str, rate: Rate) -> dict[str, float | None]:
    bounds = {f"{name}/low": rate.low, f"{name}/high": rate.high, f"{name}/standard_error": rate.standard_error}
    return {name: rate.value, **bounds}


def table(found: Sequence[Standing], name: str) -> str:
    """The standings of the model ``name`` as Markdown, beside those of Table 3."""
    heads = ["", "judged by", "items", "rate", "interval", "judgements", "unread", "not given", "contradicted", "first"]
    heads += [paper for paper, _ in STANDARD]
    lines = [f"# {name}", "", _line(heads), _line(["---", "---"] + ["---:"] * (len(heads) - 2))]
    return "\n".join([*lines, *(line for each in found for line in _lines(each)), "", *NOTES, ""])


NOTES = (
    "Rates in percent, against the opponent; AlpacaEval's intervals are of 95%, Arena-Hard's of 90%, both drawn over "
    "items. The second line of a suite is the rate at equal length (AlpacaEval) or equal style (Arena-Hard). Unread: "
    "no verdict could be read; not given: the judge or the opponent gave no answer, or the question was too long for "
    "it; both are left out of the rates. Contradicted: the two orders named different winners. First: how often the "
    "answer shown first won.",
    "",
    "Figures of different judges cannot be compared. The columns at the end are the paper's (Table 3), judged by GPT-4 "
    "Turbo: another model, another judge, other prompts, for orientation only.",
)


def _lines(each: Standing) -> list[str]:
    counts = [f"{each.judgements:,}", f"{each.unread:,}", f"{sum(each.missing.values()):,}"]
    shares = [_percent(each.disagreement), _percent(each.first_position)]
    plain = [each.suite, each.judge, f"{each.rate.items:,}", *_bounded(each.rate), *counts, *shares]
    label = CONTROLLED[each.suite]
    controlled = [f"{each.suite}, {label.replace('_', ' ')}", each.judge, "", *_bounded(each.controlled)]
    controlled += [""] * (len(counts) + len(shares))
    return [_line([*plain, *_paper(each.suite)]), _line([*controlled, *_paper(f"{each.suite}/{label}")])]


def _bounded(rate: Rate) -> list[str]:
    bounds = "" if rate.low is None else f"{_percent(rate.low)} to {_percent(rate.high)}"
    return [_percent(rate.value), bounds]


def _paper(name: str) -> list[str]:
    return [f"{figures[name]:.1f}" if name in figures else "" for _, figures in STANDARD]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

"""Turns the sheets of a human study back into win rates, and tells how far people agree (paper, 3.4).

A person who sees no difference counts half, as a judge that contradicts itself does; a choice left open is left out and
counted. A turn that several people saw scores the mean of their choices, so that the rate is one over turns and its
interval one over the log's users, as the judge's are.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from rlhi.evaluate.clusters import interval
from rlhi.evaluate.study.sheets import Choice, Item, Key, Sheet
from rlhi.page import counted, percent
from rlhi.records import Axis

RESAMPLES = 2000
FEW_USERS = 10  # under which a percentile bootstrap is clearly too narrow
FEW = 30  # comparisons, under which agreement says little
SCORES = (1.0, 0.5, 0.0)  # our answer, no difference, the opponent's


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two choices on one turn are the same, in [0, 1], and Krippendorff's alpha (nominal).

    Both are null where nothing can be compared; alpha is null too where all choices are the same one.
    """

    same: float | None
    alpha: float | None
    compared: int


@dataclass(frozen=True, slots=True)
class Person:
    """One person's choices on one axis; shares in [0, 1]."""

    number: int
    choices: int
    rate: float | None
    first: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """What people said on one axis. ``rate`` is our answers' win rate; null is not measured.

    ``first`` is the share of choices of an answer that fell on A; ``judge`` compares each choice with the judge's.
    """

    axis: Axis
    rate: float | None
    low: float | None
    high: float | None
    turns: int
    users: int
    choices: int
    neither: int
    unanswered: int
    first: float | None
    persons: Agreement
    judge: Agreement
    each: tuple[Person, ...]


@dataclass(frozen=True, slots=True)
class _Chosen:
    item: Item
    person: int
    choice: Choice

    @property
    def score(self) -> float:
        return 0.5 if self.choice == "neither" else float(self.choice == self.item.ours)


def results(sheets: Sequence[Sheet], key: Key) -> list[Result]:
    """A result per axis, in the order of the key."""
    return [_result(sheets, key, axis) for axis in key.axes]


def told(found: Sequence[Result], key: Key) -> str:
    """The results as text."""
    given = len({person.number for result in found for person in result.each})
    lines = [
        f"study {key.study}: {given} of {counted(len(key.persons), 'person')}, {key.mode}, against the {key.opponent}"
    ]
    for result in found:
        lines += ["", *_told(result, key)]
    return "\n".join([*lines, ""])


def _result(sheets: Sequence[Sheet], key: Key, axis: Axis) -> Result:
    chosen = [row for sheet in sheets for row in _chosen(sheet, key, axis)]
    turns: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in chosen:
        turns[row.item.user_id, row.item.turn_id].append(row.score)
    users: dict[str, list[float]] = defaultdict(list)
    for (user, _), scores in turns.items():
        users[user].append(math.fsum(scores) / len(scores))
    low, high = interval(users, RESAMPLES, 0) or (None, None)
    return Result(
        axis=axis,
        rate=_mean([score for scores in users.values() for score in scores]),
        low=low,
        high=high,
        turns=len(turns),
        users=len(users),
        choices=len(chosen),
        neither=sum(row.choice == "neither" for row in chosen),
        unanswered=sum(len(key.persons[sheet.person - 1]) for sheet in sheets) - len(chosen),
        first=_first(chosen),
        persons=agreement([scores for scores in turns.values() if len(scores) > 1]),
        judge=agreement([[row.score, judged] for row in chosen if (judged := _judged(row, key, axis)) is not None]),
        each=tuple(_person(sheet.person, _chosen(sheet, key, axis)) for sheet in sheets),
    )


def agreement(units: Sequence[Sequence[float]]) -> Agreement:
    """Agreement of the scores (1, 0.5 or 0) that each unit, such as a turn, was given by two or more."""
    pairs = [first == second for scores in units for first, second in combinations(scores, 2)]
    if not pairs:
        return Agreement(None, None, 0)
    return Agreement(sum(pairs) / len(pairs), _alpha(units), len(pairs))


def _alpha(units: Sequence[Sequence[float]]) -> float | None:
    import krippendorff

    counts = [[Counter(scores)[score] for score in SCORES] for scores in units]
    if sum(any(column) for column in zip(*counts, strict=True)) < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))


def _chosen(sheet: Sheet, key: Key, axis: Axis) -> list[_Chosen]:
    items = key.persons[sheet.person - 1]
    return [
        _Chosen(items[number - 1], sheet.person, made[axis])
        for number, made in sorted(sheet.choices.items())
        if axis in made
    ]


def _judged(row: _Chosen, key: Key, axis: Axis) -> float | None:
    """The judge's choice as a score: one that contradicts itself sees no difference."""
    score = key.judged.get(row.item.turn_id, {}).get(axis)
    return None if score is None else 0.5 if score == 0.5 else float(score > 0.5)


def _person(number: int, chosen: Sequence[_Chosen]) -> Person:
    return Person(number, len(chosen), _mean([row.score for row in chosen]), _first(chosen))


def _first(chosen: Sequence[_Chosen]) -> float | None:
    return _mean([float(row.choice == "A") for row in chosen if row.choice != "neither"])


def _told(found: Result, key: Key) -> Iterator[str]:
    bounds = "no interval" if found.low is None else f"95% interval {percent(found.low)} to {percent(found.high)}"
    yield f"{found.axis}: the model's answer wins {percent(found.rate)} ({bounds})"
    yield (
        f"  {counted(found.choices, 'choice')} on {counted(found.turns, 'turn')} of {counted(found.users, 'user')}; "
        f"{found.neither} no difference, {found.unanswered} left open; A chosen {percent(found.first)}"
    )
    yield f"  people agree with each other {_agreed(found.persons)}"
    yield f"  people agree with the judge ({key.judge}) {_agreed(found.judge)}"
    if 0 < found.users < FEW_USERS:
        yield f"  too few users to tell: with {found.users}, an interval is narrower than it should be, or none"
    yield f"  {'person':<8}{'choices':>8}{'win rate':>10}{'chose A':>10}"
    for person in found.each:
        yield f"  {person.number:<8}{person.choices:>8}{percent(person.rate):>10}{percent(person.first):>10}"


def _agreed(found: Agreement) -> str:
    if found.same is None:
        return "–: nothing to compare"
    alpha = "not defined, all say the same" if found.alpha is None else f"{found.alpha:.2f}"
    few = ", too few to tell" if found.compared < FEW else ""
    return f"{percent(found.same)} of {counted(found.compared, 'comparison')}{few} (Krippendorff's alpha {alpha})"


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None

"""An arm's answers to benchmarks as figures of Tables 3 and 4, and how they differ from another arm's, item by item."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from rlhi.analyze.estimates import Bootstrap
from rlhi.artifacts import Input
from rlhi.benchmark.accuracy import accuracies
from rlhi.benchmark.contests import Judgement
from rlhi.benchmark.opponents import FORMATS
from rlhi.benchmark.standings import CONTROLLED, standings
from rlhi.config import EngineConfig, parse
from rlhi.errors import InputError
from rlhi.evaluate.clusters import flip_test, interval
from rlhi.records import Grade, Suite, from_table

PAIRED: tuple[str, ...] = ("minerva", "olympiadbench", "gpqa", "mmlu-pro", "gsm8k", "alpaca-eval")  # means over items


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure in [0, 1] over ``count`` turns or items, of ``users`` if of any, and its interval; null is none."""

    value: float
    low: float | None
    high: float | None
    count: int
    users: int | None = None


@dataclass(frozen=True)
class Answered:
    """An arm's figures by suite (``arena-hard``, ``alpaca-eval/length_controlled``), and the mean score of each item.

    ``judge`` and ``opponent`` are those of AlpacaEval and Arena-Hard; empty where neither was asked.
    """

    cells: Mapping[str, Cell]
    scores: Mapping[str, Mapping[str, float]]
    judge: str
    opponent: str


@dataclass(frozen=True, slots=True)
class Apart:
    """The mean difference over the items that both arms answered, its interval over items, and a paired p."""

    difference: float
    low: float | None
    high: float | None
    p: float | None
    items: int


def read(answers: Input[Grade], bootstrap: Bootstrap) -> Answered:
    """The figures of one output of benchmark.

    Raises:
        InputError: it cannot be read.
    """
    grades, config = answers.read(), answers.manifest.config
    found: dict[str, Cell] = {
        each.suite: Cell(each.right.value, each.right.low, each.right.high, each.right.users)
        for each in accuracies([grade for grade in grades if grade.suite not in FORMATS], bootstrap)
        if each.category is None and each.right.value is not None
    }
    judge = parse(EngineConfig, config["pairwise"]["judge"], "benchmark.pairwise.judge").name
    compared = _standings(_judgements(answers.path), judge, bootstrap)
    return Answered({**found, **compared}, _scores(grades), *(_named(config) if compared else ("", "")))


def apart(ours: Answered, theirs: Answered, suite: str, bootstrap: Bootstrap) -> Apart | None:
    """How the first differs from the second in one of `PAIRED`; null without shared items, or where judges differ."""
    own, others = ours.scores.get(suite, {}), theirs.scores.get(suite, {})
    judged = suite in FORMATS
    shared = [item for item in own if item in others]
    if suite not in PAIRED or not shared or (judged and not alike(ours, theirs)):
        return None
    differences = {item: [own[item] - others[item]] for item in shared}
    low, high = interval(differences, bootstrap.resamples, bootstrap.seed) or (None, None)
    mean = sum(value for (value,) in differences.values()) / len(shared)
    return Apart(mean, low, high, flip_test(differences, bootstrap.resamples, bootstrap.seed), len(shared))


def alike(ours: Answered, theirs: Answered) -> bool:
    """Whether one judge compared both with the same opponent."""
    return (ours.judge, ours.opponent) == (theirs.judge, theirs.opponent)


def _named(config: Mapping[str, Any]) -> tuple[str, str]:
    pairwise = config["pairwise"]
    names = [
        parse(EngineConfig, pairwise[side], f"benchmark.pairwise.{side}").name if pairwise[side] else "as published"
        for side in ("judge", "opponent")
    ]
    return names[0], names[1]


def _standings(judgements: Sequence[Judgement], judge: str, bootstrap: Bootstrap) -> dict[str, Cell]:
    found: dict[str, Cell] = {}
    for each in standings(judgements, judge, bootstrap):
        for name, rate in ((each.suite, each.rate), (f"{each.suite}/{CONTROLLED[each.suite]}", each.controlled)):
            if rate.value is not None:
                found[name] = Cell(rate.value, rate.low, rate.high, rate.items)
    return found


def _scores(grades: Sequence[Grade]) -> dict[str, dict[str, float]]:
    """Of problems an answer without a score is wrong, as in the accuracy; of what is judged it is left out."""
    found: dict[Suite, dict[str, list[float]]] = {suite: defaultdict(list) for suite in get_args(Suite)}
    for each in grades:
        if each.suite not in FORMATS or each.score is not None:
            found[each.suite][each.item_id].append(each.score or 0.0)
    return {suite: {item: sum(own) / len(own) for item, own in items.items()} for suite, items in found.items()}


def _judgements(folder: Path) -> list[Judgement]:
    path = folder / "judgements.parquet"
    try:
        return from_table(Judgement, pq.read_table(path)) if path.exists() else []
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: cannot be read ({error}); run benchmark again") from None

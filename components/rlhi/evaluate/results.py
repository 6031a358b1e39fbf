"""What an evaluation found, as figures of a run and as files that pages and studies read.

An output of evaluate holds, beside its verdicts: ``turns.parquet`` (`HeldOutTurn` rows), ``contests.parquet``
(`Compared` rows: both answers to a turn and their rewards) and ``figures.json`` (``win_rates``, ``differences`` and
``over_personalization``, lists of `WinRate` and `Difference` by field).
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow.parquet as pq

from rlhi.artifacts import Input, Output
from rlhi.config import EngineConfig, parse
from rlhi.errors import InputError
from rlhi.evaluate.differences import Difference
from rlhi.evaluate.turns import Compared, Contest, HeldOutTurn
from rlhi.evaluate.winrates import ALL, WinRate
from rlhi.records import Verdict, from_table, to_table

TURNS, CONTESTS, FIGURES = "turns.parquet", "contests.parquet", "figures.json"
R = TypeVar("R")


@dataclass(frozen=True)
class Results:
    """One evaluation: what was compared, what was said of it, and what that comes to."""

    turns: Sequence[HeldOutTurn]
    contests: Sequence[Contest]
    verdicts: Sequence[Verdict]
    win_rates: Sequence[WinRate]
    differences: Sequence[Difference]
    over_personalization: Sequence[Difference]

    @property
    def overall(self) -> list[WinRate]:
        """The win rates over all turns."""
        return [rate for rate in self.win_rates if rate.part == ALL]


def save(results: Results, output: Output[Verdict]) -> None:
    """Writes all but the verdicts, which are the output's rows."""
    compared = [_compared(each) for each in results.contests]
    pq.write_table(to_table(HeldOutTurn, results.turns), output.file(TURNS), compression="zstd")
    pq.write_table(to_table(Compared, compared), output.file(CONTESTS), compression="zstd")
    figures = {
        name: [dataclasses.asdict(each) for each in getattr(results, name)]
        for name in ("win_rates", "differences", "over_personalization")
    }
    output.file(FIGURES).write_text(json.dumps(figures, indent=1) + "\n")


def load(folder: Path) -> Results:
    """Reads a complete output of evaluate.

    Raises:
        InputError: it is none, or a file of it is missing or cannot be read.
    """
    verdicts = Input(folder, Verdict)
    rows = verdicts.read() if verdicts.manifest.kept else []
    turns = {turn.id: turn for turn in _table(folder / TURNS, HeldOutTurn)}
    contests = [_contest(each, turns) for each in _table(folder / CONTESTS, Compared)]
    try:
        figures = json.loads((folder / FIGURES).read_text())
        rates = [WinRate(**each) for each in figures["win_rates"]]
        differences = [Difference(**each) for each in figures["differences"]]
        lost = [Difference(**each) for each in figures["over_personalization"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder / FIGURES}: cannot be read ({error}); run evaluate again") from None
    return Results(list(turns.values()), contests, rows, rates, differences, lost)


def as_metrics(results: Results) -> dict[str, float]:
    """The figures by name; what was not measured is absent.

    ``win_rate/OPPONENT/METRIC/MODE``, and behind it ``/low``, ``/high``, ``/p``, ``/turns``, ``/asked``, ``/unread``,
    ``/half_read``, ``/worst``, ``/best``, ``/disagreement``, ``/first_position`` and ``/length_controlled`` with its
    ``/low`` and ``/high``; for a part of the turns ``/PART`` (``/initial``, ``/follow-up``, ``/tone/casual``) with
    ``/low``, ``/high`` and ``/turns``. ``difference/OPPONENT/METRIC/LEFT/RIGHT`` between modes,
    ``difference/OPPONENT/METRIC/MODE/evaluated/earlier`` between models, and ``over_personalization/OPPONENT``, with
    ``/low``, ``/high``, ``/p`` and ``/turns``.
    """
    found: dict[str, float | None] = {}
    for rate in results.win_rates:
        found |= _rate_metrics(rate)
    for each in results.differences:
        mode = "" if each.mode is None else f"{each.mode}/"
        name = f"difference/{each.opponent}/{each.metric}/{mode}{each.left}/{each.right}"
        found |= _difference_metrics(name, each)
    for each in results.over_personalization:
        found |= _difference_metrics(f"over_personalization/{each.opponent}", each)
    return {name: float(value) for name, value in found.items() if value is not None}


def _rate_metrics(rate: WinRate) -> dict[str, float | None]:
    name = f"win_rate/{rate.opponent}/{rate.metric}/{rate.mode}"
    usual: Mapping[str, float | None] = {"": rate.rate, "/low": rate.low, "/high": rate.high, "/turns": rate.turns}
    if rate.part != ALL:
        return {f"{name}/{rate.part}{end}": value for end, value in usual.items()}
    more: Mapping[str, float | None] = {
        "/p": rate.p,
        "/asked": rate.asked,
        "/unread": rate.unread,
        "/half_read": rate.half_read,
        "/worst": rate.worst,
        "/best": rate.best,
        "/disagreement": rate.disagreement,
        "/first_position": rate.first_position,
        "/length_controlled": rate.length_controlled,
        "/length_controlled/low": rate.length_low,
        "/length_controlled/high": rate.length_high,
    }
    return {f"{name}{end}": value for end, value in {**usual, **more}.items()}


def _difference_metrics(name: str, each: Difference) -> dict[str, float | None]:
    return {
        name: each.difference,
        f"{name}/low": each.low,
        f"{name}/high": each.high,
        f"{name}/p": each.p,
        f"{name}/turns": each.turns,
    }


def _compared(each: Contest) -> Compared:
    answers = (each.ours, each.theirs, each.our_reward, each.their_reward)
    return Compared(each.turn.id, each.turn.user_id, each.mode, each.opponent, *answers)


def _contest(each: Compared, turns: Mapping[str, HeldOutTurn]) -> Contest:
    answers = (each.ours, each.theirs, each.our_reward, each.their_reward)
    return Contest(turns[each.turn_id], each.mode, each.opponent, *answers)


def _table(path: Path, record: type[R]) -> list[R]:
    try:
        return from_table(record, pq.read_table(path))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run evaluate again") from None


def judge_of(folder: Path) -> str:
    """Who judged in a complete output of evaluate, as a reader knows it."""
    config = Input(folder, Verdict).manifest.config
    return parse(EngineConfig, config["judge"], "evaluate.judge").name

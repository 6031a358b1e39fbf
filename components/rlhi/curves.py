"""Curves of a training: the two files they lie in, and what of them a run in MLflow has not got yet.

``history.json`` holds a row for each logged step and each validation, equal for equal runs; ``timings.json`` beside it
what differs from run to run, and so counts for no digest.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rlhi.engine.s3.bucket import AwayError, Bucket
from rlhi.errors import InputError
from rlhi.runs import Point, allowed_name
from rlhi.sources import read_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

HISTORY, TIMINGS = "history.json", "timings.json"
Row = dict[str, float]
PATIENCE = 10.0  # seconds
CLOCK = ("tokens_per_s", "runtime", "samples_per_second", "steps_per_second")  # also as eval_…


def split(log: Iterable[Mapping[str, float]]) -> tuple[list[Row], list[Row]]:
    """The rows of the two files, of a transformers Trainer's ``state.log_history``; its closing row is left out.

    Figures are in the order of their names: rows that came out of a checkpoint are too.
    """
    rows = [{name: float(row[name]) for name in sorted(row)} for row in log if {"loss", "eval_loss"} & row.keys()]
    history = [{name: value for name, value in row.items() if not _of_the_clock(name)} for row in rows]
    timings = [{name: value for name, value in row.items() if name == "step" or _of_the_clock(name)} for row in rows]
    return history, [row for row in timings if len(row) > 1]


def save(place: str | Path, log: Iterable[Mapping[str, float]]) -> None:
    """Writes the files into a folder, each at once, for whoever reads them meanwhile.

    On S3 a server that stays away is not waited for: the next time brings all of it.
    """
    for name, rows in zip((HISTORY, TIMINGS), split(log), strict=True):
        text = json.dumps(rows, indent=1) + "\n"
        if str(place).startswith("s3://"):
            with suppress(AwayError):
                Bucket(str(place)).put(name, text.encode(), PATIENCE)
        else:
            partial = Path(place) / f".{name}.{os.getpid()}"
            partial.write_text(text)
            partial.replace(Path(place) / name)


def points(place: str | Path) -> list[Point]:
    """All that the files in a folder, local or on S3, hold, under ``train/``; nothing where there is none (yet)."""
    return [
        (f"train/{name}", value, int(row["step"]))
        for file in (HISTORY, TIMINGS)
        for row in _rows(f"{place}/{file}")
        for name, value in row.items()
        if name != "step" and value is not None
    ]


def missing(client: "MlflowClient", run_id: str, wanted: Sequence[Point]) -> list[Point]:
    """Those of ``wanted`` that the run does not hold: whoever wrote, and whatever was lost on the way."""
    names = {name for name, _, _ in wanted}
    held = {(name, point.step) for name in names for point in client.get_metric_history(run_id, allowed_name(name))}
    return [point for point in wanted if (point[0], point[2]) not in held]


def _rows(uri: str) -> list[Row]:
    try:
        found: list[Row] = json.loads(read_text(uri))
    except InputError:
        return []
    return found


def _of_the_clock(name: str) -> bool:
    return name.removeprefix("eval_") in CLOCK

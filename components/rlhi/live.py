"""Curves in MLflow while a stage works.

Of one that asks a model: replies and tokens a second, what stores and caches gave, time left, under ``progress/`` with
the seconds since the start as steps. Of one that trains: the rows of its history, under ``train/``, by step.

Every 15 seconds a thread writes what is new. It opens the stage's run when it first has something to write, so that a
short stage makes no call for it. A tracking server that is away never holds up the stage, and no warning is said twice.
Of progress it costs points; training's are made up for when it is back, or at the end (`rlhi.tracking`).
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rlhi.curves import missing, points
from rlhi.engine import tally
from rlhi.errors import InputError
from rlhi.progress import seconds_left
from rlhi.runs import Point, close_run, fill, open_run, refused

if TYPE_CHECKING:
    from mlflow import MlflowClient

EVERY = 15.0  # seconds
PATIENCE = 5.0  # seconds that a stage which has failed waits for the thread
_followed: str | Path | None = None


@contextmanager
def following(place: str | Path) -> Iterator[None]:
    """In here, shows what a training that runs in other processes writes into the folder ``place``, local or on S3."""
    global _followed
    _followed = place
    try:
        yield
    finally:
        _followed = None


@contextmanager
def reported(stage: str) -> Iterator["Report"]:
    """Reports on what happens in here. What fails in here fails the run, if there is one by then."""
    report = Report(stage, os.environ.get("MLFLOW_TRACKING_URI", ""))
    try:
        yield report
    except BaseException as error:
        report.fail("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


class Report:
    """The thread that writes, and the run that it writes to; without an address, neither."""

    def __init__(self, stage: str, uri: str) -> None:
        self._stage = stage
        self._uri = uri
        self._run_id = os.environ.get("MLFLOW_RUN_ID")
        self._started = time.monotonic()
        self._counted = tally.since()
        self._held: set[tuple[str, int]] | None = None  # names and steps that the run is known to hold; null: ask it
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="rlhi-live", daemon=True)
        if uri:
            self._thread.start()

    def stop(self) -> str | None:
        """Ends the report; gives the run, open, if there is one."""
        self._end(None)
        return self._run_id

    def fail(self, status: str) -> None:
        """Ends the report and the run."""
        self._end(PATIENCE)
        if self._uri and self._run_id is not None:
            with suppress(InputError), refused(self._uri):
                from mlflow import MlflowClient

                close_run(MlflowClient(tracking_uri=self._uri), self._run_id, status)

    def _end(self, patience: float | None) -> None:
        self._done.set()
        if self._uri:
            self._thread.join(patience)

    def _work(self) -> None:
        before, at = self._counted(), time.monotonic()
        while not self._done.wait(EVERY):
            counts, now = self._counted(), time.monotonic()
            progress = tally.points(counts, before, now - at) if counts != before else {}
            with suppress(InputError):
                self._write(progress, points(_followed) if _followed else [])
            before, at = counts, now

    def _write(self, progress: dict[str, float], curves: Sequence[Point]) -> None:
        wanted = {(name, step) for name, _, step in curves}
        if not progress and wanted <= (self._held or set()):
            return
        with refused(self._uri):
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=self._uri)
            seconds = time.monotonic() - self._started
            if self._run_id is None:
                self._run_id = open_run(client, self._uri, self._stage, seconds)
            left = seconds_left()
            named = {**progress, "seconds_left": left} if progress and left is not None else progress
            new = self._new(client, self._run_id, curves)
            self._held = None  # a call that fails may have been heard
            fill(
                client,
                self._run_id,
                {},
                [*((f"progress/{name}", n, int(seconds)) for name, n in named.items()), *new],
                {},
            )
            self._held = wanted

    def _new(self, client: "MlflowClient", run_id: str, curves: Sequence[Point]) -> list[Point]:
        if self._held is None:
            return missing(client, run_id, curves)
        return [(name, value, step) for name, value, step in curves if (name, step) not in self._held]

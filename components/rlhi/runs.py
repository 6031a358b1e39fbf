"""Runs in MLflow: opened, filled and closed, and what goes wrong with that in one line.

mlflow-skinny is enough, and is imported where it is needed: that takes seconds, and most commands do not track.
"""

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rlhi.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("rlhi")
Point = tuple[str, float, int]  # name, value, step

EXPERIMENT = "rlhi"
PARENT = "RLHI_PARENT_RUN_ID"  # the run in which those of stages are nested
ARM = "RLHI_ARM"  # the arm of an experiment that a task belongs to alone
ARMS = "RLHI_ARM_RUNS"  # the runs in which those of an arm's own tasks are nested instead: JSON, id by arm
ORIGIN = {"mlflow.source.name": "rlhi", "mlflow.source.type": "JOB"}  # the column "Source" of MLflow
# Set before mlflow is imported. Its own seven retries take minutes, during which a finished stage holds its GPU.
CALM = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",
}


@contextmanager
def tolerated(uri: str) -> Iterator[None]:
    """Turns a failure to track into one warning."""
    try:
        with refused(uri):
            yield
    except InputError as error:
        log.warning("%s; the output is complete", error)


@contextmanager
def refused(uri: str) -> Iterator[None]:
    """Turns a failure to track into an error that names the way out, and no password."""
    for name, value in CALM.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # one warning, not one for every retry
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError, ImportError) as error:  # its own, network and files, a missing driver
        user, at, _ = urlsplit(uri).netloc.rpartition("@")
        shown, reason = (text.replace(user + at, "") for text in (uri, str(error).partition("\n")[0][:400]))
        message = f"{shown}: MLflow cannot track there ({reason}); start it, or choose another tracking URI"
        raise InputError(message) from None


@dataclass(frozen=True)
class Around:
    """What stands around a stage's run, as this process was told.

    ``parent`` is the run of the ``arm`` that the task belongs to alone, else that of the whole pipeline, if there is
    one; ``experiment`` is for a run that has none.
    """

    parent: str | None = None
    experiment: str = EXPERIMENT
    arm: str | None = None

    @classmethod
    def here(cls) -> "Around":
        """As the variables say."""
        arm = os.environ.get(ARM)
        parent = json.loads(os.environ.get(ARMS) or "{}").get(arm, os.environ.get(PARENT))
        return cls(parent, os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT), arm)


def open_run(client: "MlflowClient", uri: str, name: str, seconds: float) -> str:
    """A run that started ``seconds`` ago, so that MLflow shows how long the stage took."""
    return begin_run(client, uri, name, time.time() - seconds, Around.here())


def begin_run(client: "MlflowClient", uri: str, name: str, started: float, around: Around) -> str:
    """A run that started at ``started``, in seconds since 1970."""
    parent = around.parent
    place = client.get_run(parent).info.experiment_id if parent else experiment(client, uri, around.experiment)
    tags = ORIGIN | ({"mlflow.parentRunId": parent} if parent else {})
    run_id: str = client.create_run(place, start_time=round(1000 * started), tags=tags, run_name=name).info.run_id
    return run_id


def close_run(client: "MlflowClient", run_id: str, status: str = "FINISHED") -> None:
    """Ends a run, unless KFP made it: KFP ends it too."""
    if run_id != os.environ.get("MLFLOW_RUN_ID"):
        client.set_terminated(run_id, status)


def experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """The id of the experiment, made on first use."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(name, artifact_location=_artifact_location(uri)))


def _artifact_location(uri: str) -> str | None:
    """For SQLite a folder beside the database, where MLflow would take ./mlruns wherever one is; else the server's."""
    if not uri.startswith("sqlite:///"):
        return None
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute()
    return database.with_name(f"{database.stem}-artifacts").as_uri()


def fill(
    client: "MlflowClient",
    run_id: str,
    params: Mapping[str, str],
    points: Sequence[Point],
    tags: Mapping[str, str],
    at: float | None = None,
) -> None:
    """Logs all of it in one call, in the characters and lengths that MLflow allows; as measured ``at``, else now."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

    now = round(1000 * (time.time() if at is None else at))
    client.log_batch(
        run_id,
        params=[Param(allowed_name(key), value[:MAX_PARAM_VAL_LENGTH]) for key, value in params.items()],
        metrics=[Metric(allowed_name(key), float(value), now, step) for key, value, step in points],
        tags=[RunTag(allowed_name(key), value[:MAX_TAG_VAL_LENGTH]) for key, value in tags.items()],
    )


def allowed_name(key: str) -> str:
    """``key`` in the characters and the form that MLflow allows."""
    parts = re.sub(r"[^\w./ -]", "_", key).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:250] or "_"

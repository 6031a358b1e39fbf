"""Tracks runs in MLflow: one parent run per pipeline run, a nested run per stage.

A stage logs into the run that KFP's own plugin made for its task (``MLFLOW_RUN_ID``), else into a nested run of
``RLHI_PARENT_RUN_ID``, else into a run of its own. Without ``MLFLOW_TRACKING_URI`` nothing is tracked. Tracking comes
after the work is done, so a server that does not answer costs a warning and never a finished stage.
mlflow-skinny is enough, and is imported where it is needed: that takes seconds, and most commands do not track.
"""

import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rlhi import manifest
from rlhi.errors import InputError
from rlhi.manifest import FunnelRow, Manifest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

log = logging.getLogger("rlhi")
Point = tuple[str, float, int]  # name, value, step

EXPERIMENT = "rlhi"
HEADLINES = ("evaluate", "dpo")  # whose metrics tell one pipeline run from another; MLflow plots the first one
PICTURES = ("*.png", "*.html", "*.md")
ORIGIN = {"mlflow.source.name": "rlhi", "mlflow.source.type": "JOB"}  # the column "Source" of MLflow
COLUMNS: list[str | int] = ["stage", "rows_in", "kept", "kept %", "dropped", "reasons"]
# Set before mlflow is imported. Its own seven retries take minutes, during which a finished stage holds its GPU.
CALM = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",
}


def log_stage(described: Manifest, folder: Path, *, reused: bool) -> None:
    """Logs one stage's parameters, counts, metrics, funnel, digests and pictures to its run."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return
    with _tolerated(uri):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        with _stage_run(client, uri, described, reused) as run_id:
            _log(client, run_id, _flat(described.config), _points(described, folder), _tags(described, reused))
            client.log_inputs(run_id, _datasets(described, folder))
            _log_files(client, run_id, folder)
            client.log_dict(run_id, _table(described.funnel), "funnel.json")


def start_pipeline(name: str, params: Mapping[str, str], uri: str) -> str:
    """Opens the parent run of one pipeline run of the recipe ``name``; returns its id, for ``RLHI_PARENT_RUN_ID``.

    Raises:
        InputError: MLflow cannot be reached at ``uri``; nothing has run yet.
    """
    with _refused(uri):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        run_name = f"{name} {datetime.now():%m-%d %H:%M}"
        run_id: str = client.create_run(_experiment(client, uri), tags=ORIGIN, run_name=run_name).info.run_id
        _log(client, run_id, params, [], {"recipe": name})
    return run_id


def finish_pipeline(run_id: str, manifests: Sequence[Manifest], uri: str, failed: bool = False) -> None:
    """Closes the parent run with all settings, the headline metrics and the funnel of ``manifests``."""
    with _tolerated(uri):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        try:
            known = client.get_run(run_id).data.params
            params = {key: value for key, value in _settings(manifests).items() if key not in known}
            funnel = [row for described in manifests for row in described.funnel[-1:]]
            notes = {f"{made.stage}.{name}": text for made in manifests for name, text in made.notes.items()}
            _log(client, run_id, params, _headlines(manifests), _funnel_tags(funnel, notes))
            client.log_dict(run_id, _table(funnel), "funnel.json")
            client.log_inputs(run_id, _sources(manifests))
        finally:
            client.set_terminated(run_id, "FAILED" if failed else "FINISHED")


@contextmanager
def _tolerated(uri: str) -> Iterator[None]:
    """Turns a failure to track into one warning."""
    try:
        with _refused(uri):
            yield
    except InputError as error:
        log.warning("%s; the output is complete", error)


@contextmanager
def _refused(uri: str) -> Iterator[None]:
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


@contextmanager
def _stage_run(client: "MlflowClient", uri: str, described: Manifest, reused: bool) -> Iterator[str]:
    """The id of the stage's run. KFP ends the run that it made; the ones made here end here."""
    given = os.environ.get("MLFLOW_RUN_ID")
    if given:
        yield given
        return
    run_id = _create_run(client, uri, described.stage, 0.0 if reused else described.seconds)
    try:
        yield run_id
    finally:
        client.set_terminated(run_id)


def _create_run(client: "MlflowClient", uri: str, name: str, seconds: float) -> str:
    """A run that started ``seconds`` ago, so that MLflow shows how long the stage took."""
    parent = os.environ.get("RLHI_PARENT_RUN_ID")
    experiment = client.get_run(parent).info.experiment_id if parent else _experiment(client, uri)
    tags = ORIGIN | ({"mlflow.parentRunId": parent} if parent else {})
    started = int((time.time() - seconds) * 1000)
    run_id: str = client.create_run(experiment, start_time=started, tags=tags, run_name=name).info.run_id
    return run_id


def _experiment(client: "MlflowClient", uri: str) -> str:
    """The id of the experiment, made on first use."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
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


def _log(
    client: "MlflowClient", run_id: str, params: Mapping[str, str], points: Sequence[Point], tags: Mapping[str, str]
) -> None:
    """Logs all of it in one call, in the characters and lengths that MLflow allows."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        params=[Param(_name(key), value[:MAX_PARAM_VAL_LENGTH]) for key, value in params.items()],
        metrics=[Metric(_name(key), float(value), now, step) for key, value, step in points],
        tags=[RunTag(_name(key), value[:MAX_TAG_VAL_LENGTH]) for key, value in tags.items()],
    )


def _log_files(client: "MlflowClient", run_id: str, folder: Path) -> None:
    for pattern in (manifest.NAME, *PICTURES):
        for path in sorted(folder.glob(pattern)):
            client.log_artifact(run_id, str(path))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values by dotted path, each as the text that the stage's flag takes."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        flat |= _flat(value, f"{path}.") if isinstance(value, Mapping) else {path: _text(value)}
    return flat


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _name(key: str) -> str:
    """``key`` in the characters and the form that MLflow allows."""
    parts = re.sub(r"[^\w./ -]", "_", key).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:250] or "_"


def _points(described: Manifest, folder: Path) -> list[Point]:
    """Counts and figures, and the curves of training under ``train/``, apart from the figures of the same name."""
    counts = {"rows_in": described.rows_in, "kept": described.kept, "dropped": sum(described.dropped.values())}
    reasons = {f"dropped.{reason}": count for reason, count in described.dropped.items()}
    figures = {**counts, **reasons, "seconds": described.seconds, **described.metrics}
    history = folder / "history.json"
    curves = [
        (f"train/{name}", value, row["step"])
        for row in (json.loads(history.read_text()) if history.exists() else [])
        for name, value in row.items()
        if name != "step" and value is not None
    ]
    return [*((name, value, 0) for name, value in figures.items()), *curves]


def _tags(described: Manifest, reused: bool) -> dict[str, str]:
    fields = {name: getattr(described, name) for name in ("stage", "code_version", "config_hash", "digest")}
    inputs = {f"input.{name}": value for name, value in described.inputs.items()}
    prompts = {f"prompt.{name}": value for name, value in described.prompt_hashes.items()}
    return fields | {"reused": _text(reused)} | inputs | prompts | _funnel_tags(described.funnel, described.notes)


def _datasets(described: Manifest, folder: Path) -> "list[DatasetInput]":
    """Inputs and output by digest: in MLflow, runs that share data show the same digest."""
    inputs = [_dataset("input", name, digest, name) for name, digest in described.data.items()]
    return [*inputs, _dataset("output", described.stage, described.digest, str(folder))]


def _sources(manifests: Sequence[Manifest]) -> "list[DatasetInput]":
    """What came from outside: the inputs that none of the stages made."""
    inside = {made.digest for made in manifests}
    inputs = {each for made in manifests for each in made.data.items() if each[1] not in inside}
    return [_dataset("input", name, digest, name) for name, digest in sorted(inputs)]


def _dataset(context: str, name: str, digest: str, source: str) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    entity = Dataset(name, digest, "local", json.dumps({"uri": source}))
    return DatasetInput(entity, [InputTag("mlflow.data.context", context)])


def _settings(manifests: Sequence[Manifest]) -> dict[str, str]:
    """All config fields as ``stage.field``. Of a stage's later rounds, as ``stage.round.field``, those that changed."""
    settings: dict[str, str] = {}
    for made, turn in _rounds(manifests):
        for field, value in _flat(made.config).items():
            first = settings.setdefault(f"{made.stage}.{field}", value)
            if value != first:
                settings[f"{made.stage}.{turn}.{field}"] = value
    return settings


def _headlines(manifests: Sequence[Manifest]) -> list[Point]:
    """What evaluation and training measured, and rows kept per stage; rounds are the steps of a curve."""
    rounds = list(_rounds(manifests))
    chosen = [(made, turn) for stage in HEADLINES for made, turn in rounds if made.stage == stage]
    figures = [(f"{made.stage}.{name}", value, turn) for made, turn in chosen for name, value in made.metrics.items()]
    return [*figures, *((f"kept.{made.stage}", made.kept, turn) for made, turn in rounds)]


def _rounds(manifests: Sequence[Manifest]) -> Iterator[tuple[Manifest, int]]:
    """Each manifest, and the how-manieth of its stage it is, from 1."""
    seen: Counter[str] = Counter()
    for made in manifests:
        seen[made.stage] += 1
        yield made, seen[made.stage]


def _table(funnel: Sequence[FunnelRow]) -> dict[str, Any]:
    """The funnel as MLflow's UI shows a table: the JSON of a data frame. (``log_table`` would need pandas.)"""
    return {"columns": COLUMNS, "data": [_cells(row) for row in funnel]}


def _funnel_tags(funnel: Sequence[FunnelRow], notes: Mapping[str, str]) -> dict[str, str]:
    """Marks the funnel as a table, and puts it with ``notes`` where MLflow shows a run's description."""
    gap = "&nbsp;&nbsp;| "  # MLflow sets no space between columns
    lines = [gap.join(str(cell) for cell in cells) for cells in (COLUMNS, *(_cells(row) for row in funnel))]
    table = "\n".join([lines[0], "|".join(["---"] * len(COLUMNS)), *lines[1:]])
    texts = [f"**{name}**: {text}" for name, text in notes.items()]
    return {
        "mlflow.loggedArtifacts": json.dumps([{"path": "funnel.json", "type": "table"}]),
        "mlflow.note.content": "\n\n".join([table, *texts]),
    }


def _cells(row: FunnelRow) -> list[str | int]:
    percent = round(100 * row.kept / row.rows_in) if row.rows_in else ""
    reasons = ", ".join(f"{reason} {count}" for reason, count in row.dropped.items())
    return [row.stage, row.rows_in, row.kept, percent, sum(row.dropped.values()), reasons]

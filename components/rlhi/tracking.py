"""Tracks runs in MLflow: one parent run per pipeline run, a nested run per stage.

A stage logs into the run that KFP's own plugin made for its task (``MLFLOW_RUN_ID``), else into a nested run of
``RLHI_PARENT_RUN_ID`` or of its arm's (`rlhi.study`), else into a run of its own. Without ``MLFLOW_TRACKING_URI``
nothing is tracked. Tracking comes after the work is done (but for the curves of `rlhi.live`), so a server that does not
answer costs a warning and never a finished stage. What it has not got is kept (`rlhi.undelivered`) and delivered by the
next stage that reaches it, by the end of the pipeline, or by ``python -m rlhi.deliver PLACE``.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhi import manifest, undelivered
from rlhi.curves import missing, points
from rlhi.errors import InputError
from rlhi.headlines import headlines, rounds
from rlhi.manifest import FunnelRow, Manifest
from rlhi.runs import ORIGIN, Around, Point, begin_run, experiment, fill, refused
from rlhi.said import Said, as_text, from_text, now

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

log = logging.getLogger("rlhi")
GAP = "&nbsp;&nbsp;| "  # in a table, between whose columns MLflow sets no space
PICTURES = ("*.png", "*.html", "*.md")
ENOUGH = 3  # failures in a row
COLUMNS: list[str | int] = ["stage", "rows_in", "kept", "kept %", "dropped", "reasons"]


def log_stage(described: Manifest, folder: Path, *, reused: bool, run_id: str | None = None) -> None:
    """Logs one stage's parameters, counts, metrics, funnel, digests and pictures to its run.

    ``run_id`` is that run if it has been opened while the stage ran. What cannot be delivered is kept; what others have
    kept before is delivered too: see `rlhi.undelivered`.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return
    own = os.environ.get("MLFLOW_RUN_ID")
    opened = run_id or own
    said = Said(
        [described],
        now(),
        opened,
        ours=opened is None or opened != own,
        folder=str(folder),
        reused=reused,
        curves=points(folder),
        around=Around.here(),
    )
    _tell(said, uri, undelivered.place_of(folder))


def deliver(place: str, uri: str) -> tuple[int, int]:
    """Tells MLflow what is kept in ``place``; how many of it it took, and are left.

    One that it does not take keeps none behind it from being told, but several do: then it is away.

    Raises:
        InputError: the place cannot be used.
    """
    spool, sent, failed = undelivered.open_spool(place), 0, 0
    if not spool.names():
        return 0, 0
    with spool.alone() as mine:
        for name in spool.names() if mine else []:
            said, error = _sent(from_text(f"{place}/{name}", spool.read(name)), uri)
            if error is not None:
                spool.write(name, as_text(said))
                log.warning("%s; %s/%s waits for it", error, place, name)
                failed += 1
            else:
                spool.drop(name)
                sent, failed = sent + 1, 0
            if failed == ENOUGH:
                break
    return sent, len(spool.names())


def _tell(said: Said, uri: str, place: str) -> None:
    """Tells MLflow, and if it cannot be told, the place; no failure here costs a finished stage."""
    said, error = _sent(said, uri)
    try:
        if error is None:
            deliver(place, uri)
        else:
            undelivered.open_spool(place).write(undelivered.new_name(said.title), as_text(said))
            log.warning("%s; the output is complete, and what it says waits in %s", error, place)
    except InputError as lost:
        log.warning("%s; the output is complete", " and ".join(map(str, filter(None, (error, lost)))))


def _sent(said: Said, uri: str) -> tuple[Said, InputError | None]:
    """Opens the run if there is none, and fills it; gives it with its run, and why it could not be filled."""
    try:
        with refused(uri):
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=uri)
            if said.run_id is None:
                started = said.ended - (0.0 if said.reused else said.manifests[0].seconds)
                said = replace(said, run_id=begin_run(client, uri, said.title, started, said.around))
            (_send_pipeline if said.folder is None else _send_stage)(client, said)
    except InputError as error:
        return said, error
    return said, None


def _send_stage(client: "MlflowClient", said: Said) -> None:
    (described,), folder, own = said.manifests, Path(said.folder or ""), said.run_id or ""
    try:
        curves = missing(client, own, said.curves)  # the rest was written while it trained
        tags = _tags(described, said.reused, said.around.arm)
        fill(client, own, _flat(described.config), [*_points(described), *curves], tags, said.ended)
        client.log_inputs(own, _datasets(described, folder))
        _log_files(client, own, folder)
        if not folder.exists():  # the output has gone to S3 since, and its pictures with it
            client.log_dict(own, asdict(described), manifest.NAME)
        client.log_dict(own, _table(described.funnel), "funnel.json")
    finally:
        if said.ours:
            client.set_terminated(own, "FINISHED", round(1000 * said.ended))


def _send_pipeline(client: "MlflowClient", said: Said) -> None:
    run_id, manifests = said.run_id or "", said.manifests
    try:
        known = client.get_run(run_id).data.params
        params = {key: value for key, value in _settings(manifests).items() if key not in known}
        funnel = [row for described in manifests for row in described.funnel[-1:]]
        notes = {f"{made.stage}.{name}": text for made in manifests for name, text in made.notes.items()}
        fill(client, run_id, params, headlines(manifests), _funnel_tags(funnel, notes), said.ended)
        client.log_dict(run_id, _table(funnel), "funnel.json")
        client.log_inputs(run_id, _sources(manifests))
    finally:
        client.set_terminated(run_id, "FAILED" if said.failed else "FINISHED", round(1000 * said.ended))


def start_pipeline(name: str, params: Mapping[str, str], uri: str) -> str:
    """Opens the parent run of one pipeline run of the recipe ``name``; returns its id, for ``RLHI_PARENT_RUN_ID``.

    Raises:
        InputError: MLflow cannot be reached at ``uri``; nothing has run yet.
    """
    with refused(uri):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        run_name = f"{name} {datetime.now():%m-%d %H:%M}"
        run_id: str = client.create_run(
            experiment(client, uri, Around.here().experiment), tags=ORIGIN, run_name=run_name
        ).info.run_id
        fill(client, run_id, params, [], {"recipe": name})
    return run_id


def finish_pipeline(
    run_id: str, manifests: Sequence[Manifest], uri: str, failed: bool = False, place: str | None = None
) -> None:
    """Closes the parent run with all settings, the headline metrics and the funnel of ``manifests``.

    ``place`` is where its stages keep what they could not deliver, and this is kept too.
    """
    said = Said(manifests, now(), run_id, failed=failed)
    if place is not None:
        _tell(said, uri, place)
    elif error := _sent(said, uri)[1]:
        log.warning("%s; the outputs are complete", error)


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


def _points(described: Manifest) -> list[Point]:
    counts = {"rows_in": described.rows_in, "kept": described.kept, "dropped": sum(described.dropped.values())}
    reasons = {f"dropped.{reason}": count for reason, count in described.dropped.items()}
    figures = {**counts, **reasons, "seconds": described.seconds, **described.metrics}
    return [(name, value, 0) for name, value in figures.items()]


def _tags(described: Manifest, reused: bool, arm: str | None) -> dict[str, str]:
    fields = {name: getattr(described, name) for name in ("stage", "code_version", "config_hash", "digest")}
    if arm:
        fields["arm"] = arm
    inputs = {f"input.{name}": value for name, value in described.inputs.items()}
    prompts = {f"prompt.{name}": value for name, value in described.prompt_hashes.items()}
    return fields | {"reused": _text(reused)} | inputs | prompts | _funnel_tags(described.funnel, described.notes)


def _datasets(described: Manifest, folder: Path) -> "list[DatasetInput]":
    """Inputs and output by digest: in MLflow, runs that share data show the same digest."""
    inputs = [dataset("input", name, digest, name) for name, digest in described.data.items()]
    return [*inputs, dataset("output", described.stage, described.digest, str(folder))]


def _sources(manifests: Sequence[Manifest]) -> "list[DatasetInput]":
    """What came from outside: the inputs that none of the stages made."""
    inside = {made.digest for made in manifests}
    inputs = {each for made in manifests for each in made.data.items() if each[1] not in inside}
    return [dataset("input", name, digest, name) for name, digest in sorted(inputs)]


def dataset(context: str, name: str, digest: str, source: str) -> "DatasetInput":
    """Data as MLflow knows it: ``context`` is what it was to the run, "input" or "output"."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    entity = Dataset(name, digest, "local", json.dumps({"uri": source}))
    return DatasetInput(entity, [InputTag("mlflow.data.context", context)])


def _settings(manifests: Sequence[Manifest]) -> dict[str, str]:
    """All config fields as ``stage.field``. Of a stage's later rounds, as ``stage.round.field``, those that changed."""
    settings: dict[str, str] = {}
    for made, turn in rounds(manifests):
        for field, value in _flat(made.config).items():
            first = settings.setdefault(f"{made.stage}.{field}", value)
            if value != first:
                settings[f"{made.stage}.{turn}.{field}"] = value
    return settings


def _table(funnel: Sequence[FunnelRow]) -> dict[str, Any]:
    """The funnel as MLflow's UI shows a table: the JSON of a data frame. (``log_table`` would need pandas.)"""
    return {"columns": COLUMNS, "data": [_cells(row) for row in funnel]}


def _funnel_tags(funnel: Sequence[FunnelRow], notes: Mapping[str, str]) -> dict[str, str]:
    """Marks the funnel as a table, and puts it with ``notes`` where MLflow shows a run's description."""
    lines = [GAP.join(str(cell) for cell in cells) for cells in (COLUMNS, *(_cells(row) for row in funnel))]
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

"""Registers a model with its card, its data and its figures; files that lie on S3 already are not copied."""

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rlhi import manifest
from rlhi.artifacts import USERS, Input
from rlhi.engine import tally
from rlhi.manifest import Manifest
from rlhi.promote.decision import Decision
from rlhi.promote.registry import Registry, Version, closing
from rlhi.runs import Point, fill, open_run, refused
from rlhi.tracking import dataset

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CARD = "README.md"
# what evaluate and vLLM read of a model; its rows, which quote users, stay where they are
FILES = (CARD, "training.png", manifest.NAME, USERS, "adapter", "weights")
MODELS = ("model", "champion")  # inputs that are no data
PLACE = "model"  # of the files, among the artifacts of the version's run


def register(registry: Registry, found: Decision) -> Version:
    """The version of the model: the one that it has, with what is said of it now, or else a new one."""
    digest = found.evidence.model.manifest.digest
    known = next((each for each in registry.versions() if each.digest == digest), None)
    if known is not None:
        registry.tell(known.number, found.tags, found.markdown)
        with refused(registry.uri):
            _describe(registry, known.run_id, found)
        return known
    with refused(registry.uri):
        given = os.environ.get("MLFLOW_RUN_ID")  # KFP's own for this task
        run_id = given or open_run(registry.client, registry.uri, f"{found.config.name} {digest[:8]}", 0.0)
    with closing(registry, run_id), refused(registry.uri):
        _describe(registry, run_id, found)
        return registry.add(_source(registry, run_id, found), run_id, found.tags, found.markdown)


def _describe(registry: Registry, run_id: str, found: Decision) -> None:
    """Card, data and figures, in the run of the version."""
    card = found.evidence.model.path / CARD
    tags = {"mlflow.note.content": _body(card.read_text())} if card.exists() else {}
    fill(registry.client, run_id, {}, list(_figures(found)), tags)
    registry.client.log_inputs(run_id, list(_datasets(found)))
    if card.exists():
        for path in (card, card.with_name("training.png")):
            if path.exists():
                registry.client.log_artifact(run_id, str(path))
    registry.client.log_text(run_id, found.markdown, "decision.md")


def _body(card: str) -> str:
    """A card without its front matter, which is for the hub."""
    return re.sub(r"\A---\n.*?\n---\n+", "", card, flags=re.DOTALL)


def _source(registry: Registry, run_id: str, found: Decision) -> str:
    """Where the version's files are: where they lie, if others can reach that, or else with the server."""
    folder, given = found.evidence.model.path, found.config.source
    if "://" in given and not given.startswith("file:"):
        return given
    if not registry.uri.startswith(("http://", "https://")):  # a database of this machine: its files are here too
        return folder.absolute().as_uri()
    for path in (folder / name for name in FILES):
        if path.is_dir():
            registry.client.log_artifacts(run_id, str(path), f"{PLACE}/{path.name}")
        elif path.exists():
            registry.client.log_artifact(run_id, str(path), PLACE)
    return f"{registry.client.get_run(run_id).info.artifact_uri}/{PLACE}"


def _figures(found: Decision) -> Iterator[Point]:
    """What training, evaluation, safety and the gate have measured, by stage; without how fast models were."""
    given = found.evidence
    made: dict[str, Input[Any] | None] = {
        "dpo": given.model,
        "evaluate": given.verdicts,
        "safety": given.safety,
        "opponent_safety": given.opponent_safety,
    }
    for stage, output in made.items():
        if output is not None:
            own = output.manifest.metrics.items()
            yield from ((f"{stage}.{name}", value, 0) for name, value in own if not name.startswith(tally.PREFIXES))
    yield from ((f"gate.{rule.name}", rule.value, 0) for rule in found.rules if rule.value is not None)


def _datasets(found: Decision) -> "Iterator[DatasetInput]":
    """What it was trained on and what it was evaluated on, by digest."""
    given: dict[str, Manifest] = {
        "training": found.evidence.model.manifest,
        "evaluation": found.evidence.verdicts.manifest,
    }
    for context, described in given.items():
        for name, digest in described.data.items():
            if name not in MODELS:
                yield dataset(context, name, digest, name)

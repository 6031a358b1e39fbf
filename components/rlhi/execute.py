"""Runs one stage: reuse what is done, else read, call, write, describe, track.

The stages know nothing of this: each is a function of inputs, one output and one config. With ``RLHI_STORE`` set to a
folder, outputs are kept there by content (stage, code, config and digests of the inputs), so that a run that starts
again, or another recipe that shares a stage, gets the output without computing it.
"""

import datetime
import inspect
import json
import logging
import os
import shutil
import time
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhi import manifest, tracking
from rlhi.artifacts import Input, Output, link_tree
from rlhi.config import Secret, StageConfig, as_dict, as_json, digest, secret_variable
from rlhi.engine import tally
from rlhi.errors import InputError
from rlhi.manifest import FunnelRow, Manifest
from rlhi.sources import content_digest

log = logging.getLogger("rlhi")


@dataclass(frozen=True)
class Call:
    """One call of a stage, with everything it was given. ``uris`` are run-time values such as the source's."""

    stage: str
    run: Callable[..., None]
    inputs: Mapping[str, Input[Any]]
    uris: Mapping[str, str]
    output_name: str
    output: Output[Any]
    config: StageConfig
    secrets: Mapping[str, Secret] = field(default_factory=dict)


def execute(call: Call, executor_input: str | None = None) -> Manifest:
    """Makes the output of one call, or finds it done.

    Raises:
        InputError: bad input, or another output in the place of this one.
    """
    digests = {name: item.manifest.digest for name, item in call.inputs.items()}
    digests |= {name: content_digest(uri) for name, uri in call.uris.items() if uri}
    digests |= {secret_variable(name): digest(f"{name} {value}") for name, value in call.secrets.items() if value}
    key = digest(json.dumps([call.stage, manifest.code_version(), as_json(call.config), digests]))
    reused = _reuse(call, key)
    if not reused:
        _make(call, digests)
        _keep(call, key)
    described = manifest.load(call.output.path)
    _write_executor_output(executor_input, call, described)
    tracking.log_stage(described, call.output.path, reused=reused)
    return described


def _reuse(call: Call, key: str) -> bool:
    path = call.output.path
    if (path / manifest.NAME).exists():
        if _key_of(path, call.stage) == key:
            return True
        raise InputError(f"{path}: holds another output; remove it or choose another folder")
    if path.exists() and any(path.iterdir()):
        raise InputError(f"{path}: is not empty; choose another folder")
    stored = _stored(call.stage, key)
    if stored is None or not (stored / manifest.NAME).exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    link_tree(stored, path)
    log.info("%s: reused %s", call.stage, stored)
    return True


def _key_of(path: Path, stage: str) -> str:
    made = manifest.load(path)
    config = json.dumps(made.config, sort_keys=True)
    return digest(json.dumps([stage, made.code_version, config, made.inputs]))


def _stored(stage: str, key: str) -> Path | None:
    root = os.environ.get("RLHI_STORE")
    return Path(root) / f"{stage}-{key}" if root else None


def _keep(call: Call, key: str) -> None:
    stored = _stored(call.stage, key)
    if stored is not None and not stored.exists():
        stored.parent.mkdir(parents=True, exist_ok=True)
        link_tree(call.output.path, stored)


def _make(call: Call, digests: dict[str, str]) -> None:
    started = time.time()
    call.output.path.parent.mkdir(parents=True, exist_ok=True)
    with call.output as output:
        with tally.counted() as counts:
            call.run(**call.inputs, **call.uris, **call.secrets, **{call.output_name: output}, config=call.config)
        output.measure(tally.metrics(counts))
        if told := tally.told(counts):
            log.info("%s: %s", call.stage, told)
        output.commit(_describe(call, digests, time.time() - started))


def _describe(call: Call, digests: dict[str, str], seconds: float) -> Manifest:
    output = call.output
    own = FunnelRow(call.stage, output.rows_in, output.kept, output.dropped)
    # an earlier run's output of this very stage is not where these rows come from
    upstream = [item.manifest for item in call.inputs.values() if item.manifest.stage != call.stage]
    return Manifest(
        stage=call.stage,
        record=output.record.__name__,
        digest=manifest.folder_digest(output.partial),
        rows_in=output.rows_in,
        kept=output.kept,
        dropped=output.dropped,
        funnel=[*manifest.merge_funnels([each.funnel for each in upstream]), own],
        config=as_dict(call.config),
        config_hash=digest(as_json(call.config)),
        inputs=digests,
        prompt_hashes=manifest.prompt_hashes(Path(inspect.getfile(call.run)).parent),
        code_version=manifest.code_version(),
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        metrics=output.metrics,
        users=output.users,
        notes=dict(ChainMap(output.notes, *(each.notes for each in upstream))),
        settings=dict(ChainMap({call.stage: as_dict(call.config)}, *(each.settings for each in upstream))),
        measured=dict(ChainMap({call.stage: output.metrics}, *(each.measured for each in upstream))),
    )


def _write_executor_output(executor_input: str | None, call: Call, described: Manifest) -> None:
    """Tells KFP what the task made: the artifact's URI, and counts and figures as its metadata."""
    if executor_input is None:
        return
    outputs = json.loads(executor_input)["outputs"]
    artifact = outputs["artifacts"][call.output_name]["artifacts"][0]
    metadata: dict[str, Any] = {
        "stage": call.stage,
        "digest": described.digest,
        "rows_in": described.rows_in,
        "kept": described.kept,
    }
    metadata |= {f"dropped.{reason}": n for reason, n in described.dropped.items()} | described.metrics
    written = {"artifacts": {call.output_name: {"artifacts": [{**artifact, "metadata": metadata}]}}}
    path = Path(outputs["outputFile"])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(written))
    shutil.move(partial, path)

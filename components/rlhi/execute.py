"""Runs one stage: reuse what is done, else read, call, write, describe, track.

The stages know nothing of this: each is a function of inputs, one output and one config. With ``RLHI_STORE`` set to a
folder, outputs are kept there by content (stage, code, config and digests of the inputs), so that a run that starts
again, or another recipe that shares a stage, gets the output without computing it. An output that lacks replies which
a server did not give in time (`tally.GIVEN_UP`) is not kept.
"""

import datetime
import errno
import inspect
import json
import logging
import os
import shutil
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rlhi import live, manifest, shards, tracking, watermark
from rlhi.artifacts import Input, Output, link_tree
from rlhi.config import Secret, StageConfig, as_dict, as_json, digest, secret_variable
from rlhi.engine import tally
from rlhi.engine.sharded import Shard
from rlhi.errors import InputError
from rlhi.manifest import FunnelRow, Manifest
from rlhi.sources import content_digest

# what a disk can say of a write: full, a quota, a limit on the size of files, read-only, no right
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
AGAINST = ("champion", "opponent_safety")  # inputs of a model that another one is held against
log = logging.getLogger("rlhi")


@dataclass(frozen=True)
class Call:
    """One call of a stage, with everything it was given. ``uris`` are run-time values such as the source's.

    With a ``shard`` the call makes replies in the store and no rows: see `rlhi.shards`. Where the inputs are of runs
    ``apart``, nothing of theirs is handed on: one funnel cannot tell of several.
    """

    stage: str
    run: Callable[..., None]
    inputs: Mapping[str, Input[Any]]
    uris: Mapping[str, str]
    output_name: str
    output: Output[Any]
    config: StageConfig
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    shard: Shard | None = None
    apart: bool = False

    @property
    def part(self) -> str | None:
        """The shard, as it is written down."""
        return None if self.shard is None else str(self.shard)


def execute(call: Call, executor_input: str | None = None) -> Manifest:
    """Makes the output of one call, or finds it done.

    Raises:
        InputError: bad input, another output in the place of this one, or no room or no right to write it.
    """
    with explained(call.output.path):
        return _execute(call, executor_input)


def _execute(call: Call, executor_input: str | None) -> Manifest:
    digests = {name: item.manifest.digest for name, item in call.inputs.items()}
    digests |= {name: content_digest(uri) for name, uri in call.uris.items() if uri}
    digests |= watermark.digests() if "source" in call.uris else {}
    digests |= {secret_variable(name): digest(f"{name} {value}") for name, value in call.secrets.items() if value}
    key = digest(json.dumps([call.stage, manifest.code_version(), as_json(call.config), digests, call.part]))
    reused = _reuse(call, key)
    with live.reported(manifest.titled(call.stage, call.part)) as report:
        if not reused:
            _make(call, digests)
            _keep(call, key)
        described = manifest.load(call.output.path)
        tell_kfp(executor_input, call.output_name, _metadata(described))
        tracking.log_stage(described, call.output.path, reused=reused, run_id=report.stop())
    return described


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what a disk says into one line. Of the output nothing is left then."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise InputError(
            f"{error.filename or path}: cannot be written ({os.strerror(error.errno)}); make room or give the right to"
            " write, or choose another folder, and start again"
        ) from None


def _reuse(call: Call, key: str) -> bool:
    path = call.output.path
    if (path / manifest.NAME).exists():
        if not call.config.acts and _key_of(path, call.stage) == key:
            _tell_given_up(manifest.load(path), f"{path}: remove it and start again to ask for them")
            return True
        raise InputError(f"{path}: holds another output; remove it or choose another folder")
    if path.exists() and any(path.iterdir()):
        raise InputError(f"{path}: is not empty; choose another folder")
    stored = _stored(call, key)
    if stored is None or not (stored / manifest.NAME).exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    link_tree(stored, path)
    log.info("%s: reused %s", manifest.titled(call.stage, call.part), stored)
    return True


def _key_of(path: Path, stage: str) -> str:
    made = manifest.load(path)
    config = json.dumps(made.config, sort_keys=True)
    return digest(json.dumps([stage, made.code_version, config, made.inputs, made.shard]))


def _stored(call: Call, key: str) -> Path | None:
    root = os.environ.get("RLHI_STORE")
    return Path(root) / f"{call.stage}-{key}" if root and not call.config.acts else None


def _keep(call: Call, key: str) -> None:
    stored = _stored(call, key)
    if stored is None or stored.exists():
        return
    if _tell_given_up(manifest.load(call.output.path), "not kept for other runs, so that the next one asks for them"):
        return
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        link_tree(call.output.path, stored)
    except OSError as error:  # the output is complete: hours of work do not end over a copy of it
        log.warning("%s: not kept for other runs (%s); RLHI_STORE names the folder", stored, error.strerror)


def _tell_given_up(described: Manifest, then: str) -> bool:
    """Whether the output lacks replies that another time may come; says so, and what follows."""
    given_up = described.metrics.get(tally.GIVEN_UP, 0.0)
    if given_up:
        log.warning("%s: replies that were given up: %d; %s", described.title, given_up, then)
    return bool(given_up)


def _make(call: Call, digests: dict[str, str]) -> None:
    started = time.time()
    call.output.path.parent.mkdir(parents=True, exist_ok=True)
    counted = tally.since()
    with call.output as output:
        try:
            _run_on_news(call)
        finally:  # a stage that fails has asked, and maybe paid, too
            if told := tally.told(counted()):
                log.info("%s: %s", manifest.titled(call.stage, call.part), told)
        output.measure(tally.metrics(counted()))
        output.commit(_describe(call, digests, time.time() - started))


def _run_on_news(call: Call) -> None:
    """Runs the stage, unless there is nothing new for it: then its output has no rows (see `rlhi.watermark`)."""
    told = [each.manifest.notes.get(watermark.NOTE) for each in _upstream(call)]
    said = next(filter(None, told), None)
    if said is None:
        try:
            _run(call)
        except watermark.NothingNewError as nothing:
            said = str(nothing)
    if said is not None:
        log.info("%s: nothing to do: %s", manifest.titled(call.stage, call.part), said)
        call.output.write([], [], 0)
        call.output.note(watermark.NOTE, said)


def _upstream(call: Call) -> list[Input[Any]]:
    """Where the rows come from: not from an earlier run's output of this very stage, nor from who is to be beaten."""
    inputs = [] if call.apart else [item for name, item in call.inputs.items() if name not in AGAINST]
    return [item for item in inputs if item.manifest.stage != call.stage]


def _run(call: Call) -> None:
    given = {**call.inputs, **call.uris, **call.secrets, "config": call.config}
    if call.shard is None:
        call.run(**given, **{call.output_name: call.output})
    else:
        shards.ask(partial(call.run, **given), call.output_name, call.output, call.shard)


def _describe(call: Call, digests: dict[str, str], seconds: float) -> Manifest:
    output = call.output
    upstream = [item.manifest for item in _upstream(call)]
    funnel = manifest.merge_funnels([each.funnel for each in upstream])
    if call.shard is None:
        name = manifest.in_round(call.stage, funnel)
        funnel.append(FunnelRow(name, output.rows_in, output.kept, output.dropped))
    return Manifest(
        stage=call.stage,
        record=output.record.__name__ if call.shard is None else Shard.__name__,
        digest=manifest.folder_digest(output.partial),
        rows_in=output.rows_in,
        kept=output.kept,
        dropped=output.dropped,
        funnel=funnel,
        config=as_dict(call.config),
        config_hash=digest(as_json(call.config)),
        inputs=digests,
        prompt_hashes=manifest.prompt_hashes(Path(inspect.getfile(call.run)).parent),
        code_version=manifest.code_version(),
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        metrics=output.metrics,
        users=output.users,
        shard=call.part,
        notes=dict(ChainMap(output.notes, *(each.notes for each in upstream))),
        settings=dict(ChainMap({call.stage: as_dict(call.config)}, *(each.settings for each in upstream))),
        measured=dict(ChainMap({call.stage: output.metrics}, *(each.measured for each in upstream))),
    )


def _metadata(described: Manifest) -> dict[str, Any]:
    """Counts and figures, for KFP."""
    known: dict[str, Any] = {name: getattr(described, name) for name in ("stage", "digest", "rows_in", "kept")}
    return known | {f"dropped.{reason}": n for reason, n in described.dropped.items()} | described.metrics


def tell_kfp(executor_input: str | None, name: str, metadata: Mapping[str, Any]) -> None:
    """Tells KFP what the task made: the URI of the artifact ``name``, and its metadata. Without KFP, nobody.

    A further port is a page of the output, in its folder under the port's name: it is shown from there, not copied.
    """
    if executor_input is None:
        return
    outputs = json.loads(executor_input)["outputs"]
    made = {name: given["artifacts"][0] for name, given in outputs["artifacts"].items()}
    folder = made.pop(name)
    told = {each: {**page, "uri": f"{folder['uri']}/{each}.html"} for each, page in made.items()}
    told[name] = {**folder, "metadata": dict(metadata)}
    written = {"artifacts": {each: {"artifacts": [artifact]} for each, artifact in told.items()}}
    path = Path(outputs["outputFile"])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(written))
    shutil.move(partial, path)

"""Runs a recipe or an experiment on this machine: everything is checked, then it runs, then it is told."""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines import erasure, flags, keys, plan, summary, variants
from pipelines.plan import Run
from pipelines.recipes import Recipe
from rlhi import tracking, undelivered
from rlhi.config import secret_variable
from rlhi.errors import InputError
from rlhi.ingest.identity import read_users
from rlhi.runs import PARENT
from rlhi.sources import list_files, uris

if TYPE_CHECKING:
    from pipelines import local


ITEMS_HELP = "With --promote, items of safety of your own, commas between them. [ours]"


class Tracked(Protocol):
    """The run in MLflow that everything happens in."""

    @property
    def env(self) -> Mapping[str, str]:
        """What tells stages of it."""

    def finish(self, progress: "local.Progress", place: str, *, failed: bool) -> None:
        """Closes it with what is done; what MLflow cannot be told is kept in ``place``."""


class Parent:
    """The run of a recipe, in which those of its stages are nested."""

    def __init__(self, recipe: Recipe, source: str, uri: str) -> None:
        self._uri = uri
        self._run = tracking.start_pipeline(recipe.name, parameters(recipe, source), uri)
        self.env = {PARENT: self._run}

    def finish(self, progress: "local.Progress", place: str, *, failed: bool) -> None:
        """Closes it with what is done."""
        tracking.finish_pipeline(self._run, progress.manifests, self._uri, failed=failed, place=place)


def add(command: argparse.ArgumentParser, *, logs: bool = True) -> None:
    """The flags that say what is read, and where it runs; ``logs`` have to be given, or are asked for later."""
    command.add_argument(
        "--source", metavar="URI", required=logs, help="Raw logs: a file, folder or glob, local or s3://."
    )
    command.add_argument(
        "--work", metavar="DIR", type=Path, required=True, help="Where everything goes; kept for reuse."
    )
    command.add_argument(
        "--runner",
        choices=("process", "docker"),
        default="process",
        help="Stages as processes of this Python, or in their images over Docker or podman. [process]",
    )
    command.add_argument(
        "--forget", metavar="FILE", default="", help="User ids, one a line, whose rows are left out: see 'forget'."
    )
    command.add_argument(
        "--compare",
        metavar="URIS",
        default="",
        help="Datasets whose contexts analyze compares the logs' with, commas between them.",
    )
    command.add_argument(
        "--benchmarks",
        metavar="URIS",
        default="",
        help="Benchmarks whose items no training pair may hold, and that benchmark asks, commas between them.",
    )
    command.add_argument("--items", metavar="URIS", default="", help=ITEMS_HELP)
    command.add_argument("--tracking-uri", metavar="URI", help="An MLflow server or store. [sqlite:///DIR/mlflow.db]")


def here(
    run: Run,
    given: argparse.Namespace,
    start: Callable[[str, str], Tracked],
    tell: Callable[["local.Progress", Path, str], None],
) -> int:
    """Checks everything, then runs, then tells; gives the exit code.

    ``start`` opens the run in MLflow, from the source and MLflow's address; ``tell`` has the last words of a run that
    ended well, with the work folder and that address.

    Raises:
        InputError: bad input; nothing has run then.
    """
    data = _data(run, given)
    from pipelines import graph, local

    pipeline = graph.build(run)
    if given.runner == "docker":
        from pipelines import containers

        containers.check_images(local.images(pipeline))
    work = work_folder(given.work)
    named = [flags.model_of(given.model or ""), *(uri for each in data.values() for uri in uris(each))]
    data["forget"] = erasure.listed(work, data["forget"])
    uri = given.tracking_uri or f"sqlite:///{work}/mlflow.db"
    tracked = start(data["source"], uri)
    env = {"RLHI_STORE": str(work / erasure.STORE), "MLFLOW_TRACKING_URI": uri, **tracked.env}
    kept = str(work / undelivered.FOLDER)
    env |= {undelivered.VARIABLE: kept, secret_variable("salt"): erasure.salt_of(work), **keys.variables(run)}
    read = [*(path for each in (*named, data["forget"]) for path in _local_paths(each)), *keys.files(run)]
    progress = local.Progress(summary.console(), work, plan.count(run))
    succeeded = False
    try:
        local.run(pipeline, data, local.Place(work, given.runner, read, env), progress)
        succeeded = progress.failed is None and not progress.interrupted
    finally:
        tracked.finish(progress, kept, failed=not succeeded)
    if succeeded:
        tell(progress, work, uri)
    return 0 if succeeded else _ended(progress)


def parameters(recipe: Recipe, source: str) -> dict[str, str]:
    """What MLflow shows of the run: the source, the rounds, and every setting that is not the paper's."""
    rounds = {"rounds": str(recipe.rounds), "reference_every": str(recipe.reference_every)} if recipe.rounds > 1 else {}
    return {"source": source} | rounds | {path: str(value) for path, value in variants.differences(recipe).items()}


def work_folder(folder: Path) -> Path:
    """``folder``, made where it is not there.

    Raises:
        InputError: it cannot be written to.
    """
    work = folder.expanduser().absolute()
    try:
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work):
            pass
    except OSError as error:
        raise InputError(f"{work}: cannot be written ({error.strerror}); choose another --work") from None
    return work


def absolute(uri: str) -> str:
    """``uri``, a local path made absolute."""
    return uri if "://" in uri or not uri else os.path.abspath(os.path.expanduser(uri))


def stopped() -> int:
    """What is said when a person interrupts, and the exit code."""
    sys.stderr.write("stopped; run the same again to go on from the last finished stage\n")
    return 130


def _data(run: Run, given: argparse.Namespace) -> dict[str, str]:
    """The parameters of the pipeline: what comes from outside, all of it there.

    Raises:
        InputError: it is not, or nobody would read it, or somebody would and it is not given.
    """
    source, forget = _source(given.source), absolute(given.forget)
    read_users(forget)
    compare = ",".join(map(_source, uris(given.compare)))
    if compare and all(arm.analyze is None for arm in run.arms):
        raise InputError(f"--compare: {run.name} does not run analyze, which compares; leave it out")
    benchmarks = ",".join(map(_source, uris(given.benchmarks)))
    if any(arm.benchmark is not None for arm in run.arms) and not benchmarks:
        raise InputError("benchmark: has nothing to ask; give --benchmarks, the files of the benchmarks")
    items = ",".join(map(_source, uris(given.items)))
    plan.check_items(run, items)
    found = dict(zip((*plan.DATA, plan.ITEMS), (source, forget, compare, benchmarks, items), strict=True))
    return {name: found[name] for name in plan.data_of(run)}


def _source(uri: str) -> str:
    """``uri`` with a local path made absolute, since the stages may run elsewhere.

    Raises:
        InputError: nothing that can be read is there.
    """
    source = absolute(uri)
    list_files(source)
    return source


def _local_paths(uri: str) -> list[Path]:
    """The local path that holds what ``uri`` names: of a glob, the folder before its first mark."""
    path = uri.removeprefix("file://")
    plain = re.split(r"[*?\[]", path)[0]
    held = Path(path if plain == path else os.path.dirname(plain))
    return [held] if path.startswith("/") else []


def _ended(progress: "local.Progress") -> int:
    """What is said of a run that did not end well, and its exit code."""
    if progress.failed is None:
        return stopped()
    sys.stderr.write(
        f"error: stage {progress.failed} failed, see above; run the same again once that is mended,"
        " what is done is reused\n"
    )
    return 1

"""Runs a recipe on this machine by KFP's own local runner: the same compiled graph as on a cluster."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from kfp import local
from kfp.local import subprocess_task_handler
from rich.console import Console
from rich.markup import escape

from pipelines.adapter import ProcessHandler, Task, adapted
from rlhi import manifest
from rlhi.manifest import Manifest

RunnerName = Literal["process", "docker"]


@dataclass(frozen=True)
class Place:
    """Where a run happens: the folder that holds everything, the runner, what its tasks read and see."""

    work: Path
    runner: RunnerName = "process"
    read: Sequence[Path] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A task that is done. ``described`` is None for one that is no stage of ours, or gives what another run made."""

    task: Task
    seconds: float
    described: Manifest | None
    reused: bool


@dataclass
class Progress:
    """What is done so far, told line by line as it happens."""

    console: Console
    work: Path
    total: int
    done: list[Done] = field(default_factory=list)
    failed: str | None = None
    interrupted: bool = False

    @property
    def manifests(self) -> list[Manifest]:
        """What the stages say of their outputs, in the order in which they ran."""
        return [one.described for one in self.done if one.described is not None and one.described.shard is None]

    def follow(self, task: Task, execute: Callable[[], int]) -> bool:
        """Runs one task and tells of it. One that exits with 0 but reports no outputs has failed too."""
        _point(self.work / "latest", task.folder.parent)
        self.console.print(f"[bold]\\[{len(self.done) + 1}/{self.total}] {escape(task.title)}[/]", highlight=False)
        started = time.time()
        if execute() != 0 or not task.report.exists():
            self.failed = task.title
            return False
        self.done.append(_finished(task, started))
        self.console.print(f"      {_told(self.done[-1])}", highlight=False)
        return True


def run(pipeline: Any, arguments: Mapping[str, str], place: Place, progress: Progress) -> None:
    """Runs a compiled pipeline; how it went is in ``progress`` then."""
    runner, handlers = _runner(place, progress)
    with adapted(handlers):
        local.init(runner, pipeline_root=str(place.work / "runs"), raise_on_error=False)
        try:
            pipeline(**arguments)
        except KeyboardInterrupt:
            progress.interrupted = True


def images(pipeline: Any) -> set[str]:
    """The images that a compiled pipeline runs in."""
    executors = pipeline.pipeline_spec.deployment_spec["executors"]
    return {executors[name]["container"]["image"] for name in executors}


def _runner(place: Place, progress: Progress) -> tuple[Any, dict[tuple[Any, str], Any]]:
    if place.runner == "process":
        handler = partial(ProcessHandler, progress.follow, place.env)
        return local.SubprocessRunner(use_venv=False), {(subprocess_task_handler, "SubprocessTaskHandler"): handler}
    from kfp.local import docker_task_handler

    from pipelines import containers

    swap = {(docker_task_handler, "DockerTaskHandler"): partial(containers.ContainerHandler, progress.follow)}
    return containers.runner(place.work, place.read, place.env), swap


def _finished(task: Task, started: float) -> Done:
    found = (manifest.load(path) for path in task.outputs.values() if (path / manifest.NAME).exists())
    described = next((each for each in found if each.stage == task.stage), None)
    reused = described is not None and datetime.fromisoformat(described.created_at) < _whole(started)
    return Done(task, time.time() - started, described, reused)


def _whole(seconds: float) -> datetime:
    """The second that a point in time lies in, as manifests write it."""
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)


def _told(one: Done) -> str:
    how = "[cyan]reused[/]" if one.reused else f"[green]done[/] in {one.seconds:.0f} s"
    if one.described is None:
        return how
    if one.described.shard is not None:
        asked, stored = (one.described.metrics.get(f"replies/{name}", 0) for name in ("asked", "stored"))
        return f"{how}, {asked:.0f} replies asked for, {stored:.0f} from the store"
    return f"{how}, {one.described.kept} of {one.described.rows_in} rows kept"


def _point(link: Path, target: Path) -> None:
    """Makes ``link`` a symlink to ``target``, in one step."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, link.parent))
    new.replace(link)

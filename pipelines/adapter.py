"""Lets KFP's own local runner run container components as processes of this machine, and keeps it quiet.

KFP's SubprocessRunner refuses container components by a check only. While `adapted` is in force, its task handler is
replaced by one without the check; everything else (order, placeholders, inputs, outputs) stays KFP's.
"""

import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.local import config, logging_utils, status, subprocess_task_handler

from pipelines.plan import parts_of
from pipelines.sharding import FLAG, whole_of
from rlhi.manifest import titled

# Threads that wait for each other sleep instead of spinning: on a busy machine that is several times faster.
YIELDING = {"OMP_WAIT_POLICY": "PASSIVE"}
PATIENCE = 5.0  # seconds that a process gets to end by itself


@dataclass(frozen=True)
class Task:
    """One task as KFP hands it over: its name there, its folder, where its outputs go and where it reports them.

    A page is no output of its own: it lies in one.
    """

    name: str
    folder: Path
    outputs: dict[str, Path]
    report: Path
    shard: str | None = None

    @property
    def stage(self) -> str:
        """The stage that the task is of."""
        return parts_of(self.whole)[0]

    @property
    def title(self) -> str:
        """What a person calls it: the stage, of which arm or in which round where there are several, or its shard."""
        return titled(self.whole, self.shard)

    @property
    def whole(self) -> str:
        """The task itself, or the one that this shard runs before: ``sample``, or ``sample-2`` in the second round."""
        return whole_of(self.name) if self.shard else self.name

    @classmethod
    def of(cls, argv: Sequence[str]) -> "Task":
        """The task that ``argv`` runs, read from what follows ``--executor-input``."""
        outputs = json.loads(argv[argv.index("--executor-input") + 1])["outputs"]
        report = Path(outputs["outputFile"])
        made = {name: found["artifacts"][0] for name, found in outputs.get("artifacts", {}).items()}
        paths = {name: Path(each["uri"]) for name, each in made.items() if not _is_page(each)}
        shard = argv[argv.index(FLAG) + 1] if FLAG in argv else None
        return cls(report.parent.name, report.parent, paths, report, shard)


def _is_page(artifact: Mapping[str, Any]) -> bool:
    return bool(artifact.get("type", {}).get("schemaTitle") == dsl.HTML.schema_title)


# Runs a task by calling its second argument, which gives the exit code; says whether the task is done.
Follow = Callable[[Task, Callable[[], int]], bool]


def to_status(done: bool) -> Any:
    """KFP's word for it."""
    return status.Status.SUCCESS if done else status.Status.FAILURE


class ProcessHandler(subprocess_task_handler.SubprocessTaskHandler):  # type: ignore[misc]
    """KFP's handler of subprocesses, without its refusals: the stages' code is installed here."""

    def __init__(self, follow: Follow, env: Mapping[str, str], **given: Any) -> None:
        super().__init__(**given)
        self.follow = follow
        self.env = env

    def validate_image(self, image: str) -> None:
        """The image is not used."""

    def validate_not_container_component(self, full_command: list[str]) -> None:
        """A container component is what is wanted."""

    def run(self) -> Any:
        """Runs the argv with this Python; what it writes goes straight to the terminal."""
        env = {**YIELDING, **os.environ, **self.env_vars, **self.env}
        argv = here(self.full_command)
        return to_status(self.follow(Task.of(argv), lambda: run_process(argv, env)))


def here(argv: Sequence[str]) -> list[str]:
    """``argv`` with the images' entry point replaced by this very Python and package."""
    return [sys.executable, "-m", "rlhi.cli", *argv[1:]] if argv[0] == "rlhi" else list(argv)


def run_process(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Runs ``argv`` to its end and gives the exit code; does not outlive an interrupt."""
    sys.stdout.flush()
    with subprocess.Popen(argv, env=dict(env)) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The terminal has told the process already; one that does not listen is told again, and then killed."""
    for insist in (process.terminate, process.kill):
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            insist()


@contextmanager
def adapted(handlers: Mapping[tuple[Any, str], Any]) -> Iterator[None]:
    """Puts task handlers of ours in the place of KFP's, given by module and name; all is put back at the end."""
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(_swapped(config.LocalExecutionConfig, "instance", None))
        for (module, name), handler in handlers.items():
            stack.enter_context(_swapped(module, name, handler))
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Without KFP's log lines, rules, indents and warnings about settings that matter on a cluster only."""
    root = logging.getLogger()
    with ExitStack() as stack:
        stack.enter_context(_swapped(root, "handlers", [logging.NullHandler()]))
        stack.enter_context(_swapped(logging_utils, "local_logger_context", nullcontext))
        stack.enter_context(_swapped(logging_utils, "indented_print", nullcontext))
        stack.enter_context(_swapped(logging_utils, "print_horizontal_line", lambda: None))
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"kfp\.")
        yield


@contextmanager
def _swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)

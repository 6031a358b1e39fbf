"""Reads a compiled KFP pipeline: its tasks, nested ones too, their containers, and where their inputs come from.

The file is what KFP's compiler writes, with or without the second document that holds what is Kubernetes' own (the
platform spec). Nothing here imports kfp, so that it runs in the images.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlhi.errors import InputError

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Given:
    """Where a parameter comes from.

    ``constant`` is the value in the pipeline, or the default of the pipeline's ``parameter``; ``output`` is the name
    of an earlier task's output. All are None for the item of a loop.
    """

    constant: Any = None
    parameter: str | None = None
    output: str | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """One task: what the pipeline says of it, its component, and of a container the executor and platform specs.

    A task that is a pipeline of its own, a condition, or the body of a loop has ``tasks``.
    """

    name: str
    spec: Spec
    component: Spec
    executor: Spec
    platform: Spec
    parent: "Task | None"
    tasks: dict[str, "Task"] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Its name behind those of the tasks that hold it: ``for-loop-1/train``."""
        held = "" if self.parent is None or self.parent.parent is None else f"{self.parent.path}/"
        return f"{held}{self.name}"

    @property
    def container(self) -> Spec:
        """Image, argv, environment and resources; empty for an importer or a group of tasks."""
        return self.executor.get("container") or {}

    @property
    def argv(self) -> list[str]:
        """Command and arguments, placeholders as they stand."""
        return [str(part) for part in (*self.container.get("command", ()), *self.container.get("args", ()))]

    @property
    def parameters(self) -> dict[str, Given]:
        """Every parameter that the task is given."""
        sources = self.spec.get("inputs", {}).get("parameters", {})
        return {name: _given(self.parent, source) for name, source in sources.items()}

    @property
    def reads(self) -> list["Task"]:
        """The tasks with a container, or importers, that made the artifacts which this one reads."""
        sources = self.spec.get("inputs", {}).get("artifacts", {}).values()
        return [made for source in sources if (made := _producer(self.parent, source)) is not None]

    @property
    def cached(self) -> bool:
        """Whether KFP may take its outputs from an earlier run."""
        return bool(self.spec.get("cachingOptions", {}).get("enableCache"))


def load(path: Path) -> Task:
    """The root of the pipeline in ``path``; its ``spec`` is the whole pipeline.

    Raises:
        InputError: there is no such file, or it holds no pipeline that a KFP 2 compiler wrote.
    """
    try:
        documents = [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each is not None]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a pipeline that KFP compiled") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InputError(f"{path}: is no YAML; name a pipeline that KFP compiled") from None
    found = [each for each in documents if isinstance(each, dict)]
    pipeline = next((each for each in found if "root" in each and "deploymentSpec" in each), None)
    if pipeline is None:
        raise InputError(f"{path}: holds no compiled KFP 2 pipeline; make one with 'python -m pipelines compile'")
    platform: Spec = next((each["platforms"].get("kubernetes", {}) for each in found if "platforms" in each), {})
    try:
        return _root(pipeline, platform)
    except (KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: is damaged ({type(error).__name__}: {error}); compile it again") from None


def walk(task: Task) -> Iterator[Task]:
    """Every task under ``task``, each before those that it holds."""
    for each in task.tasks.values():
        yield each
        yield from walk(each)


def _root(pipeline: Spec, platform: Spec) -> Task:
    root = Task("root", pipeline, pipeline["root"], {}, {}, None)
    executors = platform.get("deploymentSpec", {}).get("executors", {})
    _fill(root, pipeline, executors)
    for task in walk(root):  # so that what is damaged shows here
        _ = task.reads, task.parameters, task.argv
    return root


def _fill(parent: Task, pipeline: Spec, platform: Spec) -> None:
    for name, spec in parent.component["dag"]["tasks"].items():
        component = pipeline["components"][spec["componentRef"]["name"]]
        label = component.get("executorLabel", "")
        executor = pipeline["deploymentSpec"]["executors"][label] if label else {}
        parent.tasks[name] = Task(name, spec, component, executor, platform.get(label, {}), parent)
        if "dag" in component:
            _fill(parent.tasks[name], pipeline, platform)


def _given(parent: Task | None, source: Spec) -> Given:
    """Follows a parameter out of the pipelines that hold the task."""
    if "runtimeValue" in source:
        return Given(constant=source["runtimeValue"].get("constant"))
    if "taskOutputParameter" in source:
        return Given(output=source["taskOutputParameter"]["outputParameterKey"])
    name = source.get("componentInputParameter")
    if name is None or parent is None:
        return Given()
    if parent.parent is None:
        declared = parent.component.get("inputDefinitions", {}).get("parameters", {}).get(name, {})
        return Given(constant=declared.get("defaultValue"), parameter=name)
    outer = parent.spec.get("inputs", {}).get("parameters", {}).get(name)
    return Given() if outer is None else _given(parent.parent, outer)


def _producer(parent: Task | None, source: Spec) -> Task | None:
    """The task that made an artifact, through the pipelines that hold it; None for the pipeline's own input."""
    if parent is None:
        return None
    if (made := source.get("taskOutputArtifact")) is not None:
        return _maker(parent.tasks[made["producerTask"]], made["outputArtifactKey"])
    outer = parent.spec.get("inputs", {}).get("artifacts", {}).get(source.get("componentInputArtifact"))
    return None if outer is None else _producer(parent.parent, outer)


def _maker(task: Task, output: str) -> Task | None:
    if not task.tasks:
        return task
    selectors = task.component["dag"]["outputs"]["artifacts"][output].get("artifactSelectors", [])
    return _maker(task.tasks[selectors[0]["producerSubtask"]], selectors[0]["outputArtifactKey"]) if selectors else None

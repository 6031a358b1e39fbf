"""The components of a stage in later rounds of online training, or in one arm of several: the stage's own, renamed.

There a stage may read other artifacts than its own component does: in a later round models such as that of the round
before, and no model where none was trained. What is not given has to be left out of the argv, and servers do so for
artifacts only since KFP 2.17.1. So such a component is made from the stage's: without some ports and their flags, and
with others whose flags stand at the end of the argv.
"""

import inspect
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from kfp import dsl

READ = (dsl.Input[dsl.Dataset], dsl.Input[dsl.Model])


def component_as(stage: Any, name: str, reading: Collection[str]) -> Any:
    """The component of the stage, whose own is given, by another name, reading the artifacts ``reading``: ``sample-2``.

    Those that the stage's own does not read are models.
    """
    own = inspect.signature(stage.pipeline_func).parameters
    missing = [port for port, each in own.items() if each.annotation in READ and port not in reading]
    models = [port for port in reading if port not in own]
    if name == stage.name and not missing and not models:
        return stage
    kept = [each for port, each in own.items() if port not in missing]

    def made(*given: Any) -> dsl.ContainerSpec:
        named = dict(zip([*(each.name for each in kept), *models], given, strict=True))
        ports = {**{port: named[port] for port in own if port in named}, **dict.fromkeys(missing, _Absent())}
        spec = stage.pipeline_func(**ports)
        flags = [part for model in models for part in (f"--{model}", named[model].path)]
        args = [*_without(spec.args, {f"--{port}" for port in missing}), *flags]
        return dsl.ContainerSpec(image=spec.image, command=spec.command, args=args)

    made.__name__ = name.replace("-", "_")
    made.__doc__ = stage.pipeline_func.__doc__
    further = [
        inspect.Parameter(port, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=dsl.Input[dsl.Model])
        for port in models
    ]
    made.__signature__ = inspect.Signature([*kept, *further])  # type: ignore[attr-defined]
    return dsl.container_component(made)


@dataclass(frozen=True)
class _Absent:
    """Stands for an artifact that is not read."""

    path: str = ""


def _without(args: Collection[Any], flags: Collection[str]) -> list[Any]:
    """``args`` without ``flags`` and their values."""
    parts = list(args)
    gone = {
        place + step for place, part in enumerate(parts) if isinstance(part, str) and part in flags for step in (0, 1)
    }
    return [part for place, part in enumerate(parts) if place not in gone]

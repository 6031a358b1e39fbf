"""The components of a stage in later rounds of online training: the stage's own, under a name with the round's number.

In a later round some stages read models too, such as that of the round before. They are no ports of the stage's own
component: what is not given has to be left out of the argv, and servers do so for artifacts only since KFP 2.17.1. So
the component of a round is made from the stage's, with the flags at the end of the argv.
"""

import inspect
from typing import Any

from kfp import dsl


def component_in(stage: Any, number: int, models: tuple[str, ...] = ()) -> Any:
    """The component of the stage, whose own is given, in round ``number``, from 1, reading ``models``: ``sample-2``."""
    if number == 1:
        return stage
    made_by, own = stage.pipeline_func, inspect.signature(stage.pipeline_func)
    count = len(own.parameters)

    def reading(*given: Any) -> dsl.ContainerSpec:
        made = made_by(*given[:count])
        flags = [part for name, model in zip(models, given[count:], strict=True) for part in (f"--{name}", model.path)]
        return dsl.ContainerSpec(image=made.image, command=made.command, args=[*made.args, *flags])

    reading.__name__ = f"{stage.name}_{number}"
    reading.__doc__ = f"{made_by.__doc__} Round {number}."
    further = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=dsl.Input[dsl.Model])
        for name in models
    ]
    reading.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*own.parameters.values(), *further]
    )
    return dsl.container_component(reading)


def round_of(task: str) -> tuple[str, int]:
    """The stage and the number of the round of a task that is no shard: ``sample-2``, or ``sample`` for the first."""
    stage, _, number = task.partition("-")
    return stage, int(number or 1)

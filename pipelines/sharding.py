"""The shard components of a stage: the stage's own, with ``--shard`` at the end of the argv.

They are made from the stage's component and not written beside it, so that image, ports and argv cannot come apart. The
shard is in the argv, not only in the name, since KFP's cache goes by the argv. A shard makes no page, so it
has no port for one.
"""

import inspect
from typing import Any

from kfp import dsl

from rlhi.engine.sharded import Shard

FLAG = "--shard"
MARK = "-shard-"


def component_of(stage: Any, shard: Shard) -> Any:
    """The component that asks for one shard of the stage whose component is given: ``classify-shard-3``."""
    made_by, own = stage.pipeline_func, inspect.signature(stage.pipeline_func)
    kept = {name: port for name, port in own.parameters.items() if port.annotation != dsl.Output[dsl.HTML]}

    def asking(*given: Any) -> dsl.ContainerSpec:
        made = made_by(*map(dict(zip(kept, given, strict=True)).get, own.parameters))
        return dsl.ContainerSpec(image=made.image, command=made.command, args=[*made.args, FLAG, str(shard)])

    number = str(shard.number).zfill(len(str(shard.count)))  # names are sorted as text, here and in KFP's UI
    asking.__name__ = f"{stage.name}{MARK}{number}".replace("-", "_")
    asking.__doc__ = f"Asks the model what shard {shard.number} of {shard.count} of the users needs of {stage.name}."
    asking.__signature__ = own.replace(parameters=[*kept.values()])  # type: ignore[attr-defined]
    return dsl.container_component(asking)


def whole_of(task: str) -> str:
    """The task that a shard's task, named ``task``, runs before."""
    return task.partition(MARK)[0]

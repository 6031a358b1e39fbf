"""The KFP component of comparison, made for the arms of one experiment: argv only.

How many inputs it has hangs on the arms, so it is made anew for each experiment, as those of later rounds are.
"""

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kfp import dsl

from rlhi.images import image

KINDS, ANSWERS = ("verdicts", "pairs", "model"), "answers"  # what an arm has, and where it is benchmarked


def comparison_of(
    arms: Sequence[str], benchmarked: bool = False, lacking: Mapping[str, Collection[str]] | None = None
) -> Any:
    """The component that compares the arms of these names.

    Of arm i, from 1, it reads ``verdicts_i`` (evaluate), ``pairs_i`` (rip) and ``model_i`` (dpo) and, if
    ``benchmarked``, ``answers_i`` (benchmark); without what the arm is ``lacking``, by name, such as a model as it is:
    ``{"base-model": ("pairs", "model")}``. Several arms may be given the same artifact.
    """
    ports = _ports(arms, benchmarked, lacking or {})

    def comparison(*given: Any) -> dsl.ContainerSpec:
        read, config = given[: len(ports)], given[-1]
        made = given[len(ports)]
        named = [(kind, f"{arm}={port.path}") for (kind, arm), port in zip(ports.values(), read, strict=True)]
        first = [path for kind, path in named if kind == "verdicts"]
        flags = [part for kind, path in named if kind != "verdicts" for part in (f"--{kind}", path)]
        tail = ["--comparison", made.path, "--config", config, "--executor-input", "{{$}}"]
        return dsl.ContainerSpec(image=image("train"), command=["rlhi", "comparison"], args=[*first, *flags, *tail])

    comparison.__doc__ = f"Puts {', '.join(arms)} side by side, beside the paper's figures."
    comparison.__signature__ = inspect.Signature(_parameters(ports))  # type: ignore[attr-defined]
    return dsl.container_component(comparison)


def _ports(
    arms: Sequence[str], benchmarked: bool, lacking: Mapping[str, Collection[str]]
) -> dict[str, tuple[str, str]]:
    """Each input: its flag, and the arm that it is of."""
    kinds = (*KINDS, *([ANSWERS] if benchmarked else []))
    return {
        f"{kind}_{number}": (kind, arm)
        for number, arm in enumerate(arms, 1)
        for kind in kinds
        if kind not in lacking.get(arm, ())
    }


def _parameters(ports: dict[str, tuple[str, str]]) -> list[inspect.Parameter]:
    read = {name: dsl.Input[dsl.Model if kind == "model" else dsl.Dataset] for name, (kind, _) in ports.items()}
    # report is report.html of the comparison: rlhi.execute tells KFP
    made = {"comparison": dsl.Output[dsl.Dataset], "report": dsl.Output[dsl.HTML], "config": str}
    return [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=hint)
        for name, hint in {**read, **made}.items()
    ]

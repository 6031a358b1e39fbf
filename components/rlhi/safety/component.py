"""The KFP component of safety: argv only.

The model is always given here: what a pipeline trained, or what `rlhi champion` found, be it that there is none.
"""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def safety(items: str, model: dsl.Input[dsl.Model], grades: dsl.Output[dsl.Dataset], config: str) -> dsl.ContainerSpec:
    """Measures how many unsafe prompts a model answers, and how many right answers it gives up."""
    return dsl.ContainerSpec(
        image=image("train"),
        command=["rlhi", "safety"],
        args=[
            "--items",
            items,
            "--model",
            model.path,
            "--grades",
            grades.path,
            "--config",
            config,
            "--executor-input",
            "{{$}}",
        ],
    )

"""The KFP component of benchmark: argv only.

The model is always given here: pipelines benchmark what they trained. The engine's own is one call of `rlhi benchmark`.
"""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def benchmark(
    items: str, model: dsl.Input[dsl.Model], grades: dsl.Output[dsl.Dataset], config: str
) -> dsl.ContainerSpec:
    """Asks a model the problems of benchmarks many times over, and grades its answers."""
    return dsl.ContainerSpec(
        image=image("train"),
        command=["rlhi", "benchmark"],
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

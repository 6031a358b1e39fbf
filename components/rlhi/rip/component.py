"""The KFP component of rip: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def rip(
    scored: dsl.Input[dsl.Dataset], pairs: dsl.Output[dsl.Dataset], config: str, benchmarks: str = ""
) -> dsl.ContainerSpec:
    """Forms preference pairs and keeps those of high quality (RIP)."""
    return dsl.ContainerSpec(
        image=image("train"),  # it may ask a model about follow-ups
        command=["rlhi", "rip"],
        args=[
            "--scored",
            scored.path,
            "--benchmarks",
            benchmarks,
            "--pairs",
            pairs.path,
            "--config",
            config,
            "--executor-input",
            "{{$}}",
        ],
    )

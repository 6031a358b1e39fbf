"""The KFP component of check: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def check(source: str, forget: str, compare: str, benchmarks: str, config: str) -> dsl.ContainerSpec:
    """Lists all that a run would miss, within a minute, before the first stage."""
    return dsl.ContainerSpec(
        image=image("cpu"),
        command=["rlhi", "check"],
        args=[
            "--source",
            source,
            "--forget",
            forget,
            "--compare",
            compare,
            "--benchmarks",
            benchmarks,
            "--config",
            config,
        ],
    )

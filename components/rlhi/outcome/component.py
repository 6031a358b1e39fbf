"""The KFP component of outcome: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def outcome(status: dsl.PipelineTaskFinalStatus, config: str) -> dsl.ContainerSpec:
    """Writes down how the run went, and moves the watermark of a recurring run that succeeded."""
    return dsl.ContainerSpec(
        image=image("cpu"), command=["rlhi", "outcome"], args=["--status", status, "--config", config]
    )

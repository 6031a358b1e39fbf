"""The KFP component of champion: argv only. It must never be taken from KFP's cache: it says who is champion now."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def champion(champion: dsl.Output[dsl.Model], config: str) -> dsl.ContainerSpec:
    """Fetches the model that is champion in MLflow's registry, or says that there is none."""
    return dsl.ContainerSpec(
        image=image("cpu"),
        command=["rlhi", "champion"],
        args=["--champion", champion.path, "--config", config, "--executor-input", "{{$}}"],
    )

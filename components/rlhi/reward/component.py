"""The KFP component of reward: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def reward(candidates: dsl.Input[dsl.Dataset], scored: dsl.Output[dsl.Dataset], config: str) -> dsl.ContainerSpec:
    """Scores each candidate given its context and persona."""
    return dsl.ContainerSpec(
        image=image("train"),
        command=["rlhi", "reward"],
        args=[
            "--candidates",
            candidates.path,
            "--scored",
            scored.path,
            "--config",
            config,
            "--executor-input",
            "{{$}}",
        ],
    )

"""The KFP component of classify: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def classify(conversations: dsl.Input[dsl.Dataset], turns: dsl.Output[dsl.Dataset], config: str) -> dsl.ContainerSpec:
    """Labels each follow-up: new, re-attempt with or without feedback, or positive feedback."""
    return dsl.ContainerSpec(
        image=image("train"),
        command=["rlhi", "classify"],
        args=[
            "--conversations",
            conversations.path,
            "--turns",
            turns.path,
            "--config",
            config,
            "--executor-input",
            "{{$}}",
        ],
    )

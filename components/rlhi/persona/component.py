"""The KFP component of persona: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def persona(conversations: dsl.Input[dsl.Dataset], personas: dsl.Output[dsl.Dataset], config: str) -> dsl.ContainerSpec:
    """Infers at most five points on how a user likes to be answered, from the user's own messages."""
    return dsl.ContainerSpec(
        image=image("train"),
        command=["rlhi", "persona"],
        args=[
            "--conversations",
            conversations.path,
            "--personas",
            personas.path,
            "--config",
            config,
            "--executor-input",
            "{{$}}",
        ],
    )

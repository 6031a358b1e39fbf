"""The KFP component of sample: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def sample(
    conversations: dsl.Input[dsl.Dataset],
    turns: dsl.Input[dsl.Dataset],
    personas: dsl.Input[dsl.Dataset],
    samples: dsl.Output[dsl.Dataset],
    config: str,
) -> dsl.ContainerSpec:
    """Draws N answers to each request, given the context and the user's persona."""
    return dsl.ContainerSpec(
        image=image("train"),
        command=["rlhi", "sample"],
        args=[
            "--conversations",
            conversations.path,
            "--turns",
            turns.path,
            "--personas",
            personas.path,
            "--samples",
            samples.path,
            "--config",
            config,
            "--executor-input",
            "{{$}}",
        ],
    )

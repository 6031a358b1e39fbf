"""The KFP component of analyze: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def analyze(
    conversations: dsl.Input[dsl.Dataset],
    turns: dsl.Input[dsl.Dataset],
    personas: dsl.Input[dsl.Dataset],
    traits: dsl.Output[dsl.Dataset],
    analysis: dsl.Output[dsl.HTML],  # noqa: ARG001 - analysis.html of the traits: rlhi.execute tells KFP
    config: str,
    compare: str = "",
) -> dsl.ContainerSpec:
    """Shows what users write, want and ask about, beside the figures of the paper."""
    return dsl.ContainerSpec(
        image=image("train"),
        command=["rlhi", "analyze"],
        args=[
            "--conversations",
            conversations.path,
            "--turns",
            turns.path,
            "--personas",
            personas.path,
            "--compare",
            compare,
            "--traits",
            traits.path,
            "--config",
            config,
            "--executor-input",
            "{{$}}",
        ],
    )

"""The KFP component of reconstruct: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def reconstruct(
    conversations: dsl.Input[dsl.Dataset],
    turns: dsl.Input[dsl.Dataset],
    reconstructed: dsl.Output[dsl.Dataset],
    config: str,
) -> dsl.ContainerSpec:
    """Regenerates assistant turns with the policy (WildLlamaChat)."""
    return dsl.ContainerSpec(
        image=image("train"),
        command=["rlhi", "reconstruct"],
        args=[
            "--conversations",
            conversations.path,
            "--turns",
            turns.path,
            "--reconstructed",
            reconstructed.path,
            "--config",
            config,
            "--executor-input",
            "{{$}}",
        ],
    )

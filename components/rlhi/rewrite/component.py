"""The KFP component of rewrite: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def rewrite(
    conversations: dsl.Input[dsl.Dataset],
    turns: dsl.Input[dsl.Dataset],
    personas: dsl.Input[dsl.Dataset],
    rewrites: dsl.Output[dsl.Dataset],
    config: str,
) -> dsl.ContainerSpec:
    """Revises the answer that a user was not satisfied with, by the user's own follow-up."""
    return dsl.ContainerSpec(
        image=image("train"),
        command=["rlhi", "rewrite"],
        args=[
            "--conversations",
            conversations.path,
            "--turns",
            turns.path,
            "--personas",
            personas.path,
            "--rewrites",
            rewrites.path,
            "--config",
            config,
            "--executor-input",
            "{{$}}",
        ],
    )

"""The KFP component of ingest: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def ingest(source: str, forget: str, conversations: dsl.Output[dsl.Dataset], config: str) -> dsl.ContainerSpec:
    """Turns raw chat logs into conversations with users and a split."""
    return dsl.ContainerSpec(
        image=image("cpu"),
        command=["rlhi", "ingest"],
        args=[
            "--source",
            source,
            "--forget",
            forget,
            "--conversations",
            conversations.path,
            "--config",
            config,
            "--executor-input",
            "{{$}}",
        ],
    )

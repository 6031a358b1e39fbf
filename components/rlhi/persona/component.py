"""The KFP component of persona: argv only.

An earlier run's personas are not among its inputs, since no pipeline passes them yet and what is not given has to be
left out of the argv: KFP's local runner does so for IfPresentPlaceholder, servers for artifacts only since 2.17.1
(kubeflow/pipelines 14175), and every run of every recipe would depend on it.
"""

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

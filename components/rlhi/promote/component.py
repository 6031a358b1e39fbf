"""The KFP component of promote: argv only.

It must never be taken from KFP's cache: what it does hangs on the registry, and what it makes is there. Whether the
model became champion is an answer, not a failure of the run, unless the config says so.
"""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def promote(
    model: dsl.Input[dsl.Model],
    verdicts: dsl.Input[dsl.Dataset],
    safety: dsl.Input[dsl.Dataset],
    opponent_safety: dsl.Input[dsl.Dataset],
    decision: dsl.Output[dsl.Dataset],
    config: str,
) -> dsl.ContainerSpec:
    """Registers the model in MLflow and moves the alias champion to it only past a statistical gate."""
    return dsl.ContainerSpec(
        image=image("cpu"),
        command=["rlhi", "promote"],
        args=[
            "--model",
            model.path,
            "--source",
            model.uri,
            "--verdicts",
            verdicts.path,
            "--safety",
            safety.path,
            "--opponent-safety",
            opponent_safety.path,
            "--decision",
            decision.path,
            "--config",
            config,
            "--executor-input",
            "{{$}}",
        ],
    )

"""The KFP component of evaluate: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def evaluate(
    conversations: dsl.Input[dsl.Dataset],
    personas: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    verdicts: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],  # noqa: ARG001 - report.html of the verdicts: rlhi.execute tells KFP
    config: str,
) -> dsl.ContainerSpec:
    """Compares the trained model with the logged answers on held-out turns (WildChat UserEval)."""
    return dsl.ContainerSpec(
        image=image("train"),
        command=["rlhi", "evaluate"],
        args=[
            "--conversations",
            conversations.path,
            "--personas",
            personas.path,
            "--model",
            model.path,
            "--verdicts",
            verdicts.path,
            "--config",
            config,
            "--executor-input",
            "{{$}}",
        ],
    )

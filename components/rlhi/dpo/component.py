"""The KFP component of dpo: argv only."""

from kfp import dsl

from rlhi.images import image


@dsl.container_component  # type: ignore[untyped-decorator]
def dpo(pairs: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model], config: str) -> dsl.ContainerSpec:
    """Trains a LoRA adapter by persona-conditioned DPO on the pairs (eq. 1)."""
    return dsl.ContainerSpec(
        image=image("train"),
        command=["rlhi", "dpo"],
        args=["--pairs", pairs.path, "--model", model.path, "--config", config, "--executor-input", "{{$}}"],
    )

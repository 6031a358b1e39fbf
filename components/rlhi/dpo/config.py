"""Settings of the training."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED, ModelConfig, StageConfig
from rlhi.dpo.trainjob.config import TrainJobConfig
from rlhi.errors import InputError

# TRL's names. Left out are those whose loss of a pair hangs on the other pairs computed with it: bco_pair, aot.
LossType = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "discopop",
    "sigmoid_norm",
    "sft",
]
SMOOTHED = ("robust", "exo_pair")


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class DpoConfig(StageConfig):
    """The policy and how it is trained."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    loss_type: tuple[LossType, ...] = Field(
        default=("sigmoid",),
        min_length=1,
        description="TRL's losses, summed: sigmoid is DPO (eq. 1); sft alone trains on the chosen answers only (3.3).",
    )
    loss_weights: tuple[float, ...] | None = Field(default=None, description="One for each loss; null: 1 each.")
    persona: Literal["on", "off"] = Field(
        default="on", description="'off' trains on prompts without it, where conversations are tied to no users (3.1)."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="Share of pairs believed to be the wrong way round: robust, exo_pair."
    )
    beta: float = Field(
        default=0.1, gt=0, description="Sharpness of the preference; the paper gives it for online DPO only: 0.01."
    )
    learning_rate: float = Field(default=5e-7, gt=0, description="3.2 sweeps 5e-7 and 1e-6.")
    batch_size: int = Field(
        default=64, ge=1, description="Pairs of every step, over all devices (3.2: 64 offline, 32 online)."
    )
    epochs: float = Field(
        default=1.0, gt=0, description="Passes over the pairs; the last step is filled up with pairs of a further pass."
    )
    max_tokens: int = Field(
        default=4096, ge=64, description="Pairs with a longer prompt and answer are dropped with a reason."
    )
    lora_rank: int | None = Field(default=16, ge=1, description="Rank of the adapter; null trains all weights (3.2).")
    packing: Literal["on", "off"] = Field(
        default="on",
        description="'on': a prompt is computed once for both answers, and nothing is padded; 'off': TRL as it comes.",
    )
    row_tokens: int = Field(
        default=8192, ge=64, description="Tokens computed at a time where packed; a longer pair is a row of its own."
    )
    micro_batch_size: int = Field(default=2, ge=1, description="Pairs computed at a time where packing is off.")
    gradient_checkpointing: bool | None = Field(
        default=None, description="Compute layers again in the backward pass, to save memory; null: on a GPU."
    )
    validation_share: float = Field(
        default=0.1, ge=0, lt=1, description="Share of users whose pairs are not trained on, but measured."
    )
    evaluate_every: int | None = Field(
        default=None, ge=1, description="Steps between validations; null: ten times in all, and at the end."
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Validations without a lower loss after which training stops; the best weights are kept.",
    )
    checkpoint_every: int = Field(default=50, ge=1, description="Steps between checkpoints.")
    sampled_reference: bool = Field(
        default=False,
        description="Take the log-probabilities that the sampler gave as the reference's; some are checked.",
    )
    merge: bool = Field(default=False, description="Write the adapter merged into the model as well.")
    processes: int | None = Field(default=None, ge=1, description="Processes on a node; null: one for each GPU.")
    nodes: int = Field(default=1, ge=1, description="Nodes; several are a TrainJob of Kubeflow Trainer.")
    trainjob: TrainJobConfig = Field(default_factory=TrainJobConfig)

    def check(self) -> None:
        """Refuses losses and batches that do not fit together."""
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            counts = f"{len(self.loss_weights)} weights for {len(self.loss_type)} losses"
            raise InputError(f"dpo.loss_weights: {counts}; give one for each")
        smoothed = [name for name in self.loss_type if name in SMOOTHED]
        if smoothed and not self.label_smoothing:
            raise InputError(f"dpo.loss_type={smoothed[0]}: needs dpo.label_smoothing, the share of wrong labels")
        if self.label_smoothing and not smoothed:
            raise InputError(f"dpo.label_smoothing={self.label_smoothing}: is for {' and '.join(SMOOTHED)} only")
        if self.packing == "off" and self.batch_size % self.micro_batch_size:
            raise InputError(
                f"dpo.batch_size={self.batch_size} is no multiple of dpo.micro_batch_size={self.micro_batch_size}"
            )
        if self.merge and self.lora_rank is None:
            raise InputError("dpo.merge: there is no adapter to merge where dpo.lora_rank is null")

    @property
    def refers(self) -> bool:
        """Whether a loss looks at the reference's log-probabilities."""
        return set(self.loss_type) != {"sft"}

"""TRL's DPOTrainer on tokens that `render` made: as it comes, and on packed rows.

The losses, optimizer, schedule, checkpoints and logs are TRL's and transformers'. Ours are which pairs a step takes
(`plan`), the forward (`forward`) and reference log-probabilities that come with the pairs (`reference`). A step is one
batch of pairs: its rows are computed one after the other, each weighted by its share of the step.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader
from trl import DPOTrainer

from rlhi.dpo.forward import PackedRow, pack, teach
from rlhi.dpo.plan import deal
from rlhi.dpo.tokens import TokenizedPair
from rlhi.errors import InputError

SHARED = ("rewards/", "logps/")  # of TRL's figures those that are means over pairs


@dataclass(frozen=True, slots=True)
class Referred:
    """A pair, and the reference's log-probabilities of its answers, in nats."""

    pair: TokenizedPair
    chosen: float
    rejected: float


@dataclass(frozen=True, slots=True)
class Validated:
    """How much likelier the two answers of a validation pair became against the reference, in nats."""

    id: str
    chosen: float
    rejected: float

    @classmethod
    def of(cls, pair: Referred, chosen: float, rejected: float) -> "Validated":
        """From the policy's log-probabilities, in nats."""
        return cls(pair.pair.id, chosen - pair.chosen, rejected - pair.rejected)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The pairs to train on, which of them each step takes, and those to measure; rows have ``row_tokens`` at most."""

    pairs: Sequence[Referred]
    steps: Sequence[Sequence[int]]
    validation: Sequence[Referred]
    row_tokens: int


class PreparedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on a dataset of prompt_ids, chosen_ids, rejected_ids and the reference's log-probabilities."""

    accelerator: Any
    control: Any
    is_fsdp_enabled: bool
    loss_weights: list[float]

    def __init__(self, **given: Any) -> None:
        with _unhashed(given["model"]):
            super().__init__(**given)
        self.precompute_ref_logps = True

    def create_accelerator_and_postprocess(self) -> None:
        """Hides until the end of `__init__` that weights get sharded: TRL would load a reference model then."""
        super().create_accelerator_and_postprocess()
        self._sharded, self.is_fsdp_enabled = self.is_fsdp_enabled, False

    def _prepare_dataset(self, dataset: Any, *_: object, **__: object) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: object, **__: object) -> Any:
        return dataset

    def train(self, *given: Any, **named: Any) -> Any:
        """As TRL trains."""
        self.is_fsdp_enabled = self._sharded
        return super().train(*given, **named)

    def _load_best_model(self) -> None:
        """As Trainer does it. A validation leaves some weights whole, and those that are loaded are sharded."""
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        super()._load_best_model()


class PackedDPOTrainer(PreparedDPOTrainer):
    """TRL's trainer on packed rows: ``pairs``, of which each of ``steps`` takes those numbers, and ``validation``."""

    def __init__(self, *, data: "TrainingData", **given: Any) -> None:
        super().__init__(**given)
        teach(self.accelerator.unwrap_model(self.model).get_base_model() if self._adapted else self.model)
        self._data = data
        self.validated: list[Validated] = []
        self._figures: dict[str, dict[str, float]] = {"train": defaultdict(float), "eval": defaultdict(float)}
        self._since = time.monotonic()

    @property
    def _adapted(self) -> bool:
        return hasattr(self.model, "peft_config")

    def get_train_dataloader(self) -> DataLoader[Any]:
        """A batch is what this process computes in one step."""
        pairs = self._data.pairs
        return DataLoader(self._data.steps, collate_fn=lambda steps: self._rows(steps[0], pairs))

    def _rows(self, batch: Sequence[int], pairs: Sequence[Referred]) -> dict[str, Any]:
        """The rows of this process, and the sizes of the whole batch."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        lengths = [pair.pair.needed for pair in pairs]
        rows = deal(batch, lengths, self._data.row_tokens, world)[rank]
        filler = min(batch, key=lambda i: lengths[i])
        return {
            "rows": [_Job([pairs[i] for i in row] or [pairs[filler]], counts=bool(row)) for row in rows],
            "pairs": len(batch),
            "chosen_tokens": sum(len(pairs[i].pair.chosen_ids) for i in batch),
        }

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of one batch; gives its loss, of which each process has its part times their number.

        Raises:
            InputError: the loss is no number.
        """
        del num_items_in_batch
        model.train()
        total = torch.zeros((), device=self.accelerator.device)
        for left, job in zip(reversed(range(len(inputs["rows"]))), inputs["rows"], strict=True):
            with self.accelerator.no_sync(model) if left else nullcontext():
                loss = self._loss(model, job, inputs)
                self.accelerator.backward(loss)
            total += loss.detach()
        if not torch.isfinite(total):
            raise InputError(
                f"step {self.state.global_step + 1}: the loss is {total.item()}; lower dpo.learning_rate or dpo.beta"
            )
        return total

    def _loss(self, model: Any, job: "_Job", inputs: dict[str, Any]) -> torch.Tensor:
        """The row's part of the batch's loss, times the number of processes, over which gradients are averaged."""
        row = pack([one.pair for one in job.pairs], self.accelerator.device)
        world = self.accelerator.num_processes
        shares = {"sft": sum(row.lengths[0::2]) / inputs["chosen_tokens"]}
        usual = len(job.pairs) / inputs["pairs"]
        factor = world * job.counts
        weights = [factor * shares.get(kind, usual) for kind in self.loss_types]
        with self._weighted(weights), self._alone(job), self.compute_loss_context_manager():
            found: torch.Tensor = super().compute_loss(
                partial(self._answers, model, job, row), _for_trl(job, row, self)
            )
        self._count(job, row)
        return found

    def _answers(self, model: Any, job: "_Job", row: PackedRow, **_: Any) -> SimpleNamespace:
        """The call that TRL makes of a model, answered for a row. What it only logs by token is not computed."""
        logprobs = row.by_answer(model(**row.inputs))
        self._figures["train" if self.model.training else "eval"]["logps/end"] += row.ends(logprobs) * job.counts
        if job.counts and not self.model.training:
            chosen, rejected = logprobs.sum(1).chunk(2)
            self.validated += map(Validated.of, job.pairs, chosen.tolist(), rejected.tolist())
        nothing = torch.zeros_like(logprobs)
        return SimpleNamespace(log_probs=logprobs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())

    @contextmanager
    def _weighted(self, shares: Sequence[float]) -> Iterator[None]:
        usual = self.loss_weights
        self.loss_weights = [weight * share for weight, share in zip(usual, shares, strict=True)]
        try:
            yield
        finally:
            self.loss_weights = usual

    @contextmanager
    def _alone(self, job: "_Job") -> Iterator[None]:
        """TRL gathers figures of every row from all processes, which needs rows of as many pairs: ours are summed."""
        usual, mode = self.accelerator, "train" if self.model.training else "eval"
        self.accelerator, self._metrics[mode] = _Alone(usual), defaultdict(list)
        try:
            yield
            for name, values in self._metrics[mode].items():
                if name.startswith(SHARED):
                    self._figures[mode][name] += values[-1] * len(job.pairs) * job.counts
        finally:
            self.accelerator, self._metrics[mode] = usual, defaultdict(list)

    def _count(self, job: "_Job", row: PackedRow) -> None:
        figures = self._figures["train" if self.model.training else "eval"]
        figures["computed"] += row.tokens
        figures["needed"] += row.tokens * job.counts
        figures["pairs"] += len(job.pairs) * job.counts
        figures["lengths/chosen"] += sum(row.lengths[0::2]) * job.counts
        figures["lengths/rejected"] += sum(row.lengths[1::2]) * job.counts

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Loss and figures of the validation pairs, under ``eval_``."""
        self.model.eval()
        self.validated = []
        total = torch.zeros((), device=self.accelerator.device)
        with torch.no_grad():
            inputs = self._rows(range(len(self._data.validation)), self._data.validation)
            for job in inputs["rows"]:
                total += self._loss(self.model_wrapped, job, inputs)
        self.validated = sorted(gather_object(self.validated), key=lambda one: one.id)
        logs = {f"{metric_key_prefix}_loss": self.accelerator.reduce(total, "mean").item()}
        self.log(logs)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, logs)
        self.model.train()
        self._since = time.monotonic()
        return logs

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the figures of all processes since the last time."""
        mode = "train" if self.model.training else "eval"
        if "loss" in logs or "eval_loss" in logs:
            now = time.monotonic()
            means = self._means(mode)
            if mode == "train":
                means["tokens_per_s"] = means.pop("computed") / (now - self._since)
            self._metrics[mode] = defaultdict(list, {name: [value] for name, value in means.items()})
            self._since = now
        super().log(logs, start_time)

    def _means(self, mode: str) -> dict[str, float]:
        """Figures by pair, and the share of computed tokens that were needed."""
        sums, self._figures[mode] = self._figures[mode], defaultdict(float)
        names = sorted(sums)
        values = self.accelerator.reduce(torch.tensor([sums[name] for name in names], device=self.accelerator.device))
        found = dict(zip(names, values.tolist(), strict=True))
        pairs, computed = found.pop("pairs"), found.pop("computed")
        needed = found.pop("needed") / computed
        means = {name: value / pairs for name, value in found.items()}
        return {**means, "needed_share": needed, **({"computed": computed} if mode == "train" else {})}

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: transformers counts padded rows."""
        del inputs
        return 0


@contextmanager
def _unhashed(model: Any) -> Iterator[None]:
    """TRL hashes all weights, to name a file of reference log-probabilities that we do not need: a minute for 8B."""
    model.state_dict = dict
    try:
        yield
    finally:
        del model.state_dict


@dataclass(frozen=True, slots=True)
class _Job:
    """The pairs of a row; one that does not count keeps this process in time with the others."""

    pairs: list[Referred]
    counts: bool


class _Alone:
    """An accelerator that gathers from no other process."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def gather(self, value: Any) -> Any:
        return value

    gather_for_metrics = gather


def _for_trl(job: _Job, row: PackedRow, trainer: Any) -> dict[str, torch.Tensor]:
    """What TRL's loss reads of a batch: masks of the answers behind one column of prompt, and the reference."""
    device = trainer.accelerator.device
    mask = torch.nn.functional.pad(row.mask(device), (1, 0))
    return {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": mask,
        "completion_mask": mask,
        "ref_chosen_logps": torch.tensor([one.chosen for one in job.pairs], device=device),
        "ref_rejected_logps": torch.tensor([one.rejected for one in job.pairs], device=device),
    }

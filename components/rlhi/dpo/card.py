"""The model card, in the format of the Hugging Face hub: what a model was trained on, how, and how well that went.

A pure function of its values: the same training gives the same card, so that no date, speed or path of a run is in it.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from statistics import fmean

from huggingface_hub import ModelCardData
from jinja2 import Environment, StrictUndefined

from rlhi.config import as_dict
from rlhi.dpo.config import DpoConfig
from rlhi.dpo.watch import best_step
from rlhi.engine.places import pinned
from rlhi.evaluate.clusters import interval
from rlhi.manifest import FunnelRow
from rlhi.page import counted, percent

NAME, CURVES = "README.md", "training.png"
EMBEDDED = "HuggingFaceTB/SmolLM2-135M-Instruct"
RESAMPLES = 2000
RANKS = (16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes; 16 is its default
LOSSES = {
    "sigmoid": "−log σ(β · ((log π(y⁺) − log ref(y⁺)) − (log π(y⁻) − log ref(y⁻)))), DPO",
    "sft": "−log π(y⁺), by token: supervised learning of the chosen answers",
}
Bounds = tuple[float, float] | None


@dataclass(frozen=True)
class Measured:
    """How the trained model ranks validation pairs; a margin is in nats times beta. Intervals are 95%, by user."""

    pairs: int
    users: int
    accuracy: float
    accuracy_interval: Bounds
    margin: float
    margin_interval: Bounds


@dataclass(frozen=True)
class Card:
    """All that the card says. ``digests`` names the data that went in, ``warnings`` are sentences.

    ``start`` and ``reference`` are digests of models of earlier rounds; null is the base model.
    """

    config: DpoConfig
    pairs: int
    users: int
    digests: Mapping[str, str]
    funnel: Sequence[FunnelRow]
    history: Sequence[Mapping[str, float]]
    measured: Measured | None
    warnings: Sequence[str]
    code_version: str
    start: str | None = None
    reference: str | None = None


def measure(gains: Iterable[tuple[str, float, float]], beta: float, seed: int) -> Measured | None:
    """Sums up, of each validation pair, its user and what chosen and rejected gained on the reference, in nats."""
    margins: dict[str, list[float]] = {}
    for user, chosen, rejected in gains:
        margins.setdefault(user, []).append(beta * (chosen - rejected))
    if not margins:
        return None
    right = {user: [float(margin > 0) for margin in own] for user, own in margins.items()}
    every = [margin for own in margins.values() for margin in own]
    return Measured(
        pairs=len(every),
        users=len(margins),
        accuracy=fmean(margin > 0 for margin in every),
        accuracy_interval=interval(right, RESAMPLES, seed),
        margin=fmean(every),
        margin_interval=interval(margins, RESAMPLES, seed),
    )


def render(card: Card) -> str:
    """The text of ``README.md``, to lie beside the weights and the picture `CURVES`."""
    made = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)  # noqa: S701  Markdown
    made.filters.update(percent=percent, number=_number)
    steps = [row for row in card.history if "loss" in row]
    base = hub_id(card.config)
    return made.from_string(resources.files(__package__).joinpath("card.md.j2").read_text()).render(
        card=card,
        front=_front(card).to_yaml(),
        base=base or card.config.model.id,
        trained=_trained(card),
        settings=_settings(card.config),
        losses=[LOSSES.get(name, f"TRL's `{name}`") for name in card.config.loss_type],
        steps=len(steps),
        first=steps[0] if steps else {},
        last=steps[-1] if steps else {},
        best=best_step(card.history),
        lowest=min((row["eval_loss"] for row in card.history if "eval_loss" in row), default=None),
        accuracy=_bounded(card.measured.accuracy_interval if card.measured else None, percent),
        margin=_bounded(card.measured.margin_interval if card.measured else None, _number),
        max_rank=next((rank for rank in RANKS if rank >= (card.config.lora_rank or 0)), RANKS[-1]),
    )


def hub_id(config: DpoConfig) -> str | None:
    """The base model's name on the hub; null for a folder."""
    if config.model.id == "embedded":
        return EMBEDDED
    name = pinned(config.model.id, None)[0]
    return name if re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) else None


def _front(card: Card) -> ModelCardData:
    adapter = card.config.lora_rank is not None
    return ModelCardData(
        base_model=hub_id(card.config),
        base_model_relation="adapter" if adapter else "finetune",
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["rlhi", "personalization", "sft" if not card.config.refers else "dpo", *(["lora"] if adapter else [])],
        data_digests=dict(card.digests),
    )


def _trained(card: Card) -> str:
    what = "A LoRA adapter" if card.config.lora_rank is not None else "All weights of a model"
    how = "persona-conditioned DPO" if card.config.refers else "supervised learning of the chosen answers"
    return f"{what}, trained by {how} on {counted(card.pairs, 'preference pair')} of {counted(card.users, 'user')}."


def _settings(config: DpoConfig) -> dict[str, str]:
    """Every setting by its dotted name, as the command line takes it."""
    values = as_dict(config)
    model = {f"model.{name}": value for name, value in values.pop("model").items()}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in {**model, **values}.items()}


def _bounded(bounds: Bounds, shown: Callable[[float], str]) -> str:
    if bounds is None:
        return "no interval: fewer than two users"
    return f"95% interval {shown(bounds[0])} to {shown(bounds[1])}, users drawn"


def _number(value: float) -> str:
    return f"{value:.3f}"

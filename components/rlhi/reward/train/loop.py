"""The training loop of a reward model: TRL's RewardTrainer on tokens that the contract's reader made."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback
from transformers.utils import logging as transformers_logging
from trl.trainer.reward_trainer import suppress_seqcls_warning

from rlhi.engine.models import device_of
from rlhi.engine.places import place_of
from rlhi.errors import InputError
from rlhi.progress import silent
from rlhi.records import Message
from rlhi.render import Renderer
from rlhi.reward.classifier import as_tree, check_settings
from rlhi.reward.contract import Contract, checked, padding, save_contract
from rlhi.reward.reading import Reader, Tokens
from rlhi.reward.train.config import TrainingConfig
from rlhi.training import Bar, usual
from rlhi.trees import last_hidden


@dataclass(frozen=True, slots=True)
class TokenizedPreference:
    """Token ids of one pair, context and answer."""

    chosen_ids: Tokens
    rejected_ids: Tokens


@dataclass
class Base:
    """A model that gets a head, and how it reads."""

    model: Any
    reader: Reader


class PackedRewardTrainer(trl.RewardTrainer):  # type: ignore[misc]
    """TRL's trainer with both answers of a pair as one prefix tree, which is how they are scored later."""

    def compute_loss(self, model: Any, inputs: Any, *_: object, **__: object) -> torch.Tensor:
        """Bradley-Terry; the mean over the pairs."""
        inner = model.get_base_model()
        trees = [as_tree([pair["chosen_ids"], pair["rejected_ids"]]) for pair in inputs["pairs"]]
        with self.accelerator.autocast(), silent():
            states = torch.cat(last_hidden(inner, trees))
            margins = inner.score(states).float().view(-1, 2) @ torch.tensor([1.0, -1.0], device=states.device)
        self._metrics["train"]["accuracy"].append((margins > 0).float().mean().item())
        self._metrics["train"]["margin"].append(margins.mean().item())
        return -torch.nn.functional.logsigmoid(margins).mean()


def open_base(config: TrainingConfig, name: str) -> Base:
    """The base model with a new head of one label; ``name`` becomes its scale.

    Raises:
        InputError: it cannot be loaded, its class has no such head, or its template cannot be used.
    """
    transformers_logging.disable_progress_bar()
    torch.manual_seed(config.seed)  # the head is random
    device = device_of(config.model)
    try:
        place = place_of(config.model.id, config.model.revision)
        place.fetch()
        tokenizer = AutoTokenizer.from_pretrained(place.name, revision=place.commit)
        with suppress_seqcls_warning():  # that the head is new
            model = AutoModelForSequenceClassification.from_pretrained(
                place.name,
                revision=place.commit,
                num_labels=1,
                dtype=torch.float32 if device == "cpu" else torch.bfloat16,
            )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"model.id={config.model.id!r}: cannot be loaded: {reason}") from None
    model.config.architectures = [type(model).__name__]
    check_settings(model.config, config.model.id)
    persona: Literal["system", "last-user"] = "system" if config.model.persona_role == "system" else "last-user"
    renderer = Renderer(tokenizer, persona)
    pad = padding(tokenizer, renderer.check_prefix()[-1], model.config.pad_token_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    contract = Contract(scale=name, persona=persona, bos=_begins(renderer), max_tokens=config.max_tokens)
    return Base(model.to(device), Reader(renderer, checked(contract, renderer, pad), knows_persona=True))


def train(base: Base, pairs: Sequence[TokenizedPreference], config: TrainingConfig) -> list[dict[str, float]]:
    """Trains head and adapter, and merges them into ``base``; gives a row of figures for each step."""
    with tempfile.TemporaryDirectory() as scratch:
        trainer = PackedRewardTrainer(
            model=base.model,
            args=_arguments(config, base.model.device.type, scratch),
            train_dataset=Dataset.from_list([asdict(pair) for pair in pairs]),
            processing_class=base.reader.renderer.tokenizer,
            peft_config=_adapter(config, base.model),
            data_collator=lambda pairs: {"pairs": pairs},
            callbacks=[Bar()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    base.model = trainer.model.merge_and_unload()
    kept = ("step", "loss", "accuracy", "margin")
    return [{name: float(row[name]) for name in kept} for row in trainer.state.log_history if "loss" in row]


def save(base: Base, out: Path) -> None:
    """Writes checkpoint, tokenizer and contract."""
    base.model.config.problem_type = "regression"  # for vLLM: no sigmoid
    base.model.save_pretrained(out)
    base.reader.renderer.tokenizer.save_pretrained(out)
    save_contract(base.reader.contract, out)


def _begins(renderer: Renderer) -> int:
    """Tokens of beginning that the template writes."""
    ids, token = renderer.prompt((Message("user", "one"),)), renderer.tokenizer.bos_token_id
    return next(place for place, found in enumerate(ids) if found != token)


def _adapter(config: TrainingConfig, model: Any) -> LoraConfig:
    """LoRA on every linear map of the layers that are trained, and the whole head."""
    layers = model.base_model.layers
    trained = len(layers) if config.layers is None else config.layers
    if trained > len(layers):
        raise InputError(f"layers={trained}: the model has {len(layers)}")
    maps = {part for layer in layers[len(layers) - trained :] for part in layer.modules()}
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank,
        lora_dropout=0.0,
        target_modules=[
            name for name, part in model.named_modules() if part in maps and isinstance(part, torch.nn.Linear)
        ],
        modules_to_save=["score"],
        task_type="SEQ_CLS",
    )


def _arguments(config: TrainingConfig, device: str, scratch: str) -> trl.RewardConfig:
    return trl.RewardConfig(
        output_dir=scratch,
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=config.batch_size // config.micro_batch_size,
        seed=config.seed,
        **usual(device),
    )

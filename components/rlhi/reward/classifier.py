"""Rewards of a sequence classifier with one label, such as Skywork-Reward-V2, or Athene-RM-8B once it is converted.

The reward is the scalar head on the hidden state of the last token. It is read exactly there: stock code looks for the
last token that is no padding, and takes another where a text ends with the padding token. A prompt with its answers is
one prefix tree (`rlhi.trees`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.utils import logging as transformers_logging

from rlhi.config import ModelConfig, digest
from rlhi.engine.models import device_of
from rlhi.engine.places import Place, pinned, place_of
from rlhi.errors import InputError
from rlhi.records import Candidates
from rlhi.render import Renderer, prompt
from rlhi.reward.contract import Contract, as_text, checked, contract_of, told
from rlhi.reward.model import Score, Unscored, number
from rlhi.reward.reading import Reader, Tokens
from rlhi.trees import Layout, Tree, last_hidden, shared_head

CONVERT = "python -m rlhi.reward.athene SOURCE TARGET writes a checkpoint with it"


@dataclass(frozen=True)
class Classifier:
    """A loaded classifier; ``weights`` names what is loaded, ``layout`` how prompts are shared."""

    model: Any
    reader: Reader
    name: str
    weights: str
    layout: Layout = "packed"

    def score(self, rows: Sequence[Candidates]) -> list[list[Score]]:
        """Rewards on the scale of the model; null for an empty answer, a missing persona, or what is too long."""
        read = [self.reader.read(row) for row in rows]
        trees, found = [], [[one if isinstance(one, Unscored) else None for one in own] for own in read]
        for own in read:
            wholes = [one for one in own if not isinstance(one, Unscored)]
            if wholes:
                trees.append(as_tree(wholes))
        rewards = iter(self._rewards(trees))
        return [[one if one is not None else number(next(rewards)) for one in own] for own in found]

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _rewards(self, trees: Sequence[Tree]) -> list[float]:
        if not trees:
            return []
        states = torch.cat(last_hidden(self.model.base_model, trees, self.layout))
        found: list[float] = self.model.score(states)[:, 0].float().tolist()
        return found

    @property
    def scale(self) -> str:
        """As the contract has it."""
        return self.reader.contract.scale

    @property
    def bounded(self) -> bool:
        """As the contract has it."""
        return self.reader.contract.bounded

    @property
    def note(self) -> str:
        """The model, what was checked of it, and whether it sees the persona."""
        seen = "" if self.reader.knows_persona else " without the persona (user-agnostic)"
        contract = told(self.reader.contract, self.model.config.pad_token_id)
        return f"The reward is the score of {self.name}{seen}. {contract}"

    @property
    def identity(self) -> str:
        """Weights, contract, persona's prompt and what is computed with."""
        how = [
            as_text(self.reader.contract),
            prompt("rlhi", "persona_guided.j2", persona=""),
            self.reader.knows_persona,
        ]
        return f"classifier {self.weights} {digest(str(how))} {self.model.dtype} {self.model.device.type} {self.layout}"


def as_tree(wholes: Sequence[Tokens]) -> Tree:
    """Sequences as a tree: what all of them begin with, and what is left of each, at least one token.

    So every sequence is exactly what the template makes of it, also where an answer's first characters merge with the
    end of the prompt into other tokens.
    """
    head = shared_head(wholes)
    return Tree(wholes[0][:head], [whole[head:] for whole in wholes])


def load_classifier(config: ModelConfig, given: Contract | None, layout: Layout, *, knows_persona: bool) -> Classifier:
    """The classifier of ``config``, once it keeps to its contract. Float32 on a CPU, bfloat16 on a GPU.

    Raises:
        InputError: no contract, an unknown class, not one label, weights that the checkpoint lacks, or a tokenizer that
            does not do what the contract says.
    """
    if config.id == "embedded":
        raise InputError("reward.model.id='embedded': is no reward model; give a sequence classifier with one label")
    transformers_logging.disable_progress_bar()
    try:
        place = place_of(config.id, config.revision)
        contract = contract_of(pinned(config.id, None)[0], given, Path(place.name))
        settings = AutoConfig.from_pretrained(place.name, revision=place.commit)
        check_settings(settings, config.id)
        tokenizer = AutoTokenizer.from_pretrained(place.name, revision=place.commit)
        renderer = Renderer(tokenizer, contract.persona)
        contract = checked(contract, renderer, settings.pad_token_id)
        model = _load(config, place)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"reward.model.id={config.id!r}: cannot be loaded: {reason}") from None
    reader = Reader(renderer, contract, knows_persona)
    return Classifier(model, reader, config.id, place.weights, layout)


def check_settings(settings: Any, name: str) -> None:
    """Refuses, before any weights are read, what is no classifier with a scalar head on the last token.

    Raises:
        InputError: an unknown class, or more labels than one.
    """
    classes = settings.architectures or []
    if not any(_is_known(each) for each in classes):
        raise InputError(
            f"{name}: its class {', '.join(classes) or '(none)'} is no *ForSequenceClassification with a head on the "
            f"last token; for Athene, {CONVERT}"
        )
    if settings.num_labels != 1:
        raise InputError(f"{name}: has {settings.num_labels} labels, a reward model has one; take another model")


def _is_known(name: str) -> bool:
    found = getattr(transformers, name, None)
    return isinstance(found, type) and issubclass(found, GenericForSequenceClassification)


def _load(config: ModelConfig, place: Place) -> Any:
    place.fetch()
    device = device_of(config)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model, loaded = AutoModelForSequenceClassification.from_pretrained(
        place.name, revision=place.commit, dtype=dtype, output_loading_info=True
    )
    if missing := sorted(loaded["missing_keys"]):
        there = "v_head.weight" in loaded["unexpected_keys"]
        way_out = f"it has v_head.weight: {CONVERT}" if there else "take a checkpoint that has them all"
        raise InputError(
            f"{config.id}: the checkpoint lacks {', '.join(missing[:3])}, which would be random numbers; {way_out}"
        )
    return model.to(device).eval()

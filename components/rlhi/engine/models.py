"""A causal language model and its tokenizer, from the embedded model, a local folder or a hub; weights when needed.

Tokenizer and config come at once: they say how long a prompt is and what stored replies are found by. A stage whose
replies are all in the store never loads the weights.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from rlhi.config import ModelConfig
from rlhi.engine.places import nothing, place_of
from rlhi.errors import InputError
from rlhi.manifest import folder_digest
from rlhi.render import Renderer


@dataclass(frozen=True)
class Policy:
    """A model, and how conversations become its tokens. ``weights`` names what ``load`` will load."""

    renderer: Renderer
    config: ModelConfig
    weights: str
    device: torch.device
    dtype: torch.dtype
    load: Callable[[], Any]

    @cached_property
    def model(self) -> Any:
        """The model, ready to compute; loaded when it is first asked for.

        Raises:
            InputError: it cannot be loaded.
        """
        return self.load()


def trained_in(model: Path | None) -> Path | None:
    """What training made, in the folder of a model: its ``adapter`` (PEFT's), or its ``weights`` (a checkpoint).

    Without a model there is none: the base model is meant.

    Raises:
        InputError: it holds neither.
    """
    if model is None:
        return None
    found = next((model / name for name in ("adapter", "weights") if (model / name).is_dir()), None)
    if found is None:
        raise InputError(f"{model}: holds neither adapter/ nor weights/; give the model that dpo made")
    return found


def load_policy(config: ModelConfig, trained: Path | None = None, dtype: torch.dtype | None = None) -> Policy:
    """The model of ``config``: as it is, with a LoRA adapter merged in, or with the weights that training made of it.

    ``trained`` is the folder of either, as `trained_in` finds it. Without a ``dtype``: float32 on a CPU, where bfloat16
    is emulated and slower; bfloat16 on a GPU.

    Raises:
        InputError: it is not there, or its chat template cannot be used.
    """
    found = identify(config, trained)
    device = torch.device(device_of(config))
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)

    def load() -> Any:
        with _explained(config):
            found.fetch()
            model = AutoModelForCausalLM.from_pretrained(found.name, revision=found.commit, dtype=dtype)
        return _merged(model, found.adapter).to(device).eval()

    return Policy(found.renderer, config, found.weights, device, dtype, load)


@dataclass(frozen=True)
class Identified:
    """A folder or a hub's ``name`` and ``commit``, what names the ``weights`` there, and how to render for them.

    ``longest`` counts the tokens that its positions are made for; null where it does not say. ``adapter`` is the folder
    of what is to be added to the weights. Before they are loaded, ``fetch`` brings them.
    """

    name: str
    commit: str | None
    weights: str
    renderer: Renderer
    longest: int | None
    adapter: Path | None
    fetch: Callable[[], None] = nothing


def identify(config: ModelConfig, trained: Path | None = None) -> Identified:
    """What there is to know of a model, as it is or as it was trained, without loading it.

    The tokenizer is always the model's own: training does not change it.

    Raises:
        InputError: it is not there, or its chat template cannot be used.
    """
    transformers_logging.disable_progress_bar()
    with _explained(config):
        place = place_of(config.id, config.revision)
        tokenizer = AutoTokenizer.from_pretrained(place.name, revision=place.commit)
        settings = AutoConfig.from_pretrained(place.name, revision=place.commit)
    longest = getattr(settings, "max_position_embeddings", None)
    renderer = Renderer(tokenizer, config.persona_role)
    renderer.check()
    weights = place.weights if trained is None else f"{place.weights}+{folder_digest(trained)}"
    if trained is None or (trained / "adapter_config.json").exists():
        return Identified(place.name, place.commit, weights, renderer, longest, trained, place.fetch)
    return Identified(str(trained), None, weights, renderer, longest, None)


def _merged(model: Any, adapter: Path | None) -> Any:
    if adapter is None:
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()


@contextmanager
def _explained(config: ModelConfig) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"model.id={config.id!r}: cannot be loaded: {reason}") from None


def device_of(config: ModelConfig) -> str:
    """The torch device that ``config`` asks for."""
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.device

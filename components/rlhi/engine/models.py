"""Loads a causal language model and its tokenizer, once, from the embedded model, a local folder or a hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from rlhi.config import ModelConfig, digest
from rlhi.engine import embedded
from rlhi.errors import InputError
from rlhi.manifest import folder_digest
from rlhi.render import Renderer


@dataclass(frozen=True)
class Policy:
    """A model that is ready to compute, and how conversations become its tokens. ``weights`` names what is loaded."""

    model: Any
    renderer: Renderer
    config: ModelConfig
    weights: str

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        found: torch.device = self.model.device
        return found


def load_policy(config: ModelConfig, adapter: Path | None = None) -> Policy:
    """The model of ``config``, with a LoRA adapter merged in if one is given.

    Float32 on a CPU, where bfloat16 is emulated and slower; bfloat16 on a GPU.

    Raises:
        InputError: it cannot be loaded, or its chat template cannot be used.
    """
    transformers_logging.disable_progress_bar()
    name = str(embedded.folder()) if config.id == "embedded" else config.id
    device = _device(config.device)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=config.revision)
        model = AutoModelForCausalLM.from_pretrained(name, revision=config.revision, dtype=dtype)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"model.id={config.id!r}: cannot be loaded: {reason}") from None
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    renderer = Renderer(tokenizer, config.persona_role)
    renderer.check()
    return Policy(model.to(device).eval(), renderer, config, _weights(name, model, adapter))


def _weights(name: str, model: Any, adapter: Path | None) -> str:
    """The model by what is behind its name: the commit of a hub's, the files of a folder, and those of the adapter.

    Of files name, size and time of change count, not the gigabytes in them: a copied folder is taken for another model.
    """
    base = _files(Path(name)) if Path(name).is_dir() else f"{name}@{model.config._commit_hash}"
    return base if adapter is None else f"{base}+{folder_digest(adapter)}"


def _files(folder: Path) -> str:
    found = [(str(path.relative_to(folder)), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return digest("\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in found))


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked

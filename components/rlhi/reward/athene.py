"""Turns Athene-RM-8B into a standard checkpoint, whose rewards are the same to the last bit.

Athene keeps its scalar head as ``v_head.weight`` and names a class that transformers does not have. Loaded as it is,
transformers and vLLM take a random head in its place, without an error. Here the head becomes ``score.weight`` of a
LlamaForSequenceClassification, no other number is touched, and the contract is written beside it: two tokens of
beginning, the closing token <|reserved_special_token_1|> at whose place the reward is read, at most 4096 tokens, and a
padding token that is not the closing one.

The result serves `rlhi reward --kind classifier --model.id TARGET`, and ``vllm serve TARGET --runner pooling``.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from rlhi.errors import InputError, one_line
from rlhi.render import Renderer
from rlhi.reward.contract import ATHENE, checked, closing_id, padding, save_contract

HEAD, STANDARD = "v_head.weight", "score.weight"
INDEX = "model.safetensors.index.json"
LEFT = (".bin", ".gguf", ".h5", ".md", ".msgpack", ".pth", ".safetensors")  # weights are written anew, or not wanted


@one_line
def main(argv: Sequence[str] | None = None) -> int:
    """Converts one checkpoint; 0 on success, 2 after one line on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m rlhi.reward.athene", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE", help="Hugging Face id (Nexusflow/Athene-RM-8B) or local folder.")
    parser.add_argument("target", metavar="TARGET", type=Path, help="Folder to write; it must not exist.")
    parser.add_argument("--revision", help="Commit of a Hugging Face id; pin it.")
    given = parser.parse_args(argv)
    convert(_fetched(given.source, given.revision), given.target)
    sys.stderr.write(f"{given.target}: use it with rlhi reward --kind classifier --model.id {given.target}\n")
    return 0


def convert(source: Path, target: Path) -> None:
    """Writes the checkpoint in ``source`` as a standard one; all of it or nothing.

    Raises:
        InputError: ``target`` exists, or ``source`` is no checkpoint with such a head.
    """
    if target.exists():
        raise InputError(f"{target}: exists; choose another folder")
    shards = _shards(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        for path in source.iterdir():
            if path.is_file() and path.suffix not in LEFT and path.name not in ("config.json", INDEX):
                shutil.copy2(path, partial)
        for path in shards:
            _write_shard(path, partial / path.name)
        if (source / INDEX).exists():
            (partial / INDEX).write_text((source / INDEX).read_text().replace(f'"{HEAD}"', f'"{STANDARD}"'))
        _describe(source, partial)
        partial.chmod(0o755)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fetched(source: str, revision: str | None) -> Path:
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.model"]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{source}: no local folder, and cannot be downloaded: {reason}") from None


def _shards(source: Path) -> list[Path]:
    """The files with weights, once one of them has the head."""
    shards = sorted(source.glob("*.safetensors"))
    if not shards or not (source / "config.json").exists():
        raise InputError(f"{source}: holds no config.json with *.safetensors; give the folder of a checkpoint")
    if not any(HEAD in _names(path) for path in shards):
        raise InputError(f"{source}: its weights hold no {HEAD}; only checkpoints made like Athene's need converting")
    return shards


def _names(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as opened:
        return set(opened.keys())


def _write_shard(source: Path, target: Path) -> None:
    """A copy, or a link where nothing in it changes."""
    if HEAD in _names(source):
        tensors = load_file(source)
        tensors[STANDARD] = tensors.pop(HEAD)
        save_file(tensors, target, {"format": "pt"})
        return
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk
        shutil.copy2(source, target)


def _describe(source: Path, target: Path) -> None:
    """Writes config and contract."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source))
        settings: dict[str, Any] = json.loads((source / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: cannot be read: {str(error).strip().splitlines()[0]}") from None
    closing = str(tokenizer.cls_token or ATHENE.closing)
    settings.pop("auto_map", None)
    settings |= {
        "architectures": ["LlamaForSequenceClassification"],
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
        "pad_token_id": padding(tokenizer, closing_id(closing, tokenizer), settings.get("pad_token_id")),
        "problem_type": "regression",  # for vLLM: no sigmoid
    }
    (target / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    contract = replace(ATHENE, closing=closing)
    save_contract(checked(contract, Renderer(tokenizer, contract.persona), settings["pad_token_id"]), target)


if __name__ == "__main__":
    sys.exit(main())

"""Merges the adapter that dpo trained into its base model: a plain checkpoint, for whatever knows no adapters.

Reads the folder that dpo wrote. The result holds weights (safetensors, in the base model's own number format),
tokenizer with chat template, and generation config; loaded in that format, its logits are those of PEFT's merged model,
bit for bit. Merging is done on the CPU and holds the whole model in memory.

example:
  python -m rlhi.dpo.merge out/latest/dpo/model --out merged
  python -m rlhi.dpo.merge out/latest/dpo/model --out s3://bucket/models/merged
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rlhi import manifest
from rlhi.config import ModelConfig, parse
from rlhi.engine.s3.bucket import Bucket
from rlhi.errors import InputError, one_line

SHARD = "4GB"  # of weights in one file: S3 takes 5 GB at once


@one_line
def main(argv: Sequence[str] | None = None) -> int:
    """0 when the checkpoint is written, 2 after one line on bad input."""
    given = parser().parse_args(argv)
    merge_output(given.model, given.out)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m rlhi.dpo.merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("model", metavar="MODEL_FOLDER", type=Path, help="Output of dpo.")
    made.add_argument("--out", metavar="URI", required=True, help="Folder for the checkpoint, new; local or s3://.")
    return made


def merge_output(folder: Path, out: str) -> None:
    """Merges the adapter of a complete output of dpo, into the folder ``out``, local or on S3.

    Raises:
        InputError: no output of dpo, no adapter in it, its base model cannot be loaded, or ``out`` holds something or
            cannot be written.
    """
    described = manifest.load(folder)
    if described.stage != "dpo":
        raise InputError(f"{folder}: is the output of {described.stage}; give that of dpo")
    if not (folder / "adapter").exists():
        raise InputError(f"{folder}: holds no adapter/; weights/ of it, if there, are a plain checkpoint already")
    base = parse(ModelConfig, described.config["model"], "model")
    if out.startswith("s3://"):
        _to_s3(base, folder / "adapter", Bucket(out))
    else:
        _to_disk(base, folder / "adapter", out)


def merge(base: ModelConfig, adapter: Path, out: Path) -> None:
    """Writes ``base`` with ``adapter`` merged into it as a checkpoint of transformers.

    Raises:
        InputError: the base model cannot be loaded.
    """
    import torch  # not for --help: it takes seconds
    from transformers import AutoConfig

    from rlhi.engine.models import identify, load_policy

    found = identify(base)
    stored = AutoConfig.from_pretrained(found.name, revision=found.commit).dtype
    policy = load_policy(replace(base, device="cpu"), adapter, stored or torch.float32)
    policy.model.save_pretrained(out, max_shard_size=SHARD)
    policy.renderer.tokenizer.save_pretrained(out)


def _to_s3(base: ModelConfig, adapter: Path, bucket: Bucket) -> None:
    _check_empty(bucket.names(""), bucket.url)
    with tempfile.TemporaryDirectory() as scratch:
        merge(base, adapter, Path(scratch))
        for path in sorted(Path(scratch).iterdir(), key=lambda path: path.name == "config.json"):  # last: all is there
            bucket.put(path.name, path.read_bytes())


def _to_disk(base: ModelConfig, adapter: Path, out: str) -> None:
    if "://" in out:
        raise InputError(f"{out}: unknown scheme; give a local path or s3://bucket/prefix")
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        _check_empty(os.listdir(out), out)
        merge(base, adapter, Path(out))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from None


def _check_empty(found: Sequence[str], out: str) -> None:
    if found:
        raise InputError(f"{out}: is not empty; choose another folder")


if __name__ == "__main__":
    sys.exit(main())

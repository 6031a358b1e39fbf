"""Trains a small reward model on preference pairs: Bradley-Terry, by TRL's RewardTrainer.

    loss = -log sigmoid(r(chosen) - r(rejected))

A new scalar head on a causal language model, and a LoRA adapter on all of its layers or on the last few, which are
merged at the end: the result is a standard checkpoint with its contract, for `rlhi reward --kind classifier`. It reads
tokens as that reads them. A share of the pairs is held out, whole users (of transcripts, whole first messages)
together, and how many of them the saved model ranks right is told, beside the share that length alone would rank right.

Beyond the paper, which takes a reward model as it is: for those who have preferences of their own, and no such model.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rlhi.cli import describe, settings_of
from rlhi.config import override
from rlhi.errors import one_line
from rlhi.reward.train.config import TrainingConfig

WHERE = "reward.train"


@one_line
def main(argv: Sequence[str] | None = None) -> int:
    """Trains one model; 0 on success, 2 after one line on bad input."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    flags = vars(_parser().parse_args(argv))
    from rlhi.reward.train.run import run  # not for --help: it takes seconds

    config = TrainingConfig()
    for path, _, _ in settings_of(config):
        if flags[path] is not None:
            config = override(config, path, flags[path], WHERE)
    figures = run(flags["pairs"], flags["out"], config)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m rlhi.reward.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--pairs",
        required=True,
        metavar="URI",
        help="Folder of pairs by rip, or Parquet or JSONL files (also gzipped).",
    )
    made.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="Where the checkpoint goes; new.")
    settings = made.add_argument_group("settings")
    for path, field, default in settings_of(TrainingConfig()):
        settings.add_argument(f"--{path}", metavar="VALUE", help=describe(field, default))
    return made


if __name__ == "__main__":
    sys.exit(main())

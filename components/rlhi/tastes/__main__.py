"""Shows whether persona-conditioned DPO personalizes, on simulated users whose tastes are known.

Trains DPO by each user's rule, DPO by the mean of all users, and SFT, on SmolLM2-135M, and tests them on users,
requests and wordings of personas that none of them saw. DIR/tastes.html shows what came out, DIR/results.json holds it.
What is done is kept in DIR: run the same again, and only what is missing is computed. On two CPU cores the whole takes
hours, on a GPU minutes; --quick asks a smaller question.

example:
  python -m rlhi.tastes --work out/tastes --device cuda --seeds 3 --jobs 6
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhi.argv import positive
from rlhi.config import ModelConfig, SamplingConfig
from rlhi.errors import one_line
from rlhi.tastes.config import TastesConfig, TrainingConfig
from rlhi.tastes.work import Settings, chosen_in, measure_all, tune


@one_line
def main(argv: Sequence[str] | None = None) -> int:
    """0 when it is done, 2 after one line on bad input."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run(parser().parse_args(argv))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m rlhi.tastes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add(made)
    return made


def add(made: argparse.ArgumentParser) -> None:
    """The options."""
    usual = TrainingConfig()
    made.add_argument("--work", metavar="DIR", type=Path, required=True, help="Where everything is kept.")
    made.add_argument("--seed", metavar="N", type=int, default=0, help="The first seed. [0]")
    made.add_argument("--seeds", metavar="N", type=positive, default=3, help="How many seeds, one after the other. [3]")
    made.add_argument("--model", default="embedded", help="Hugging Face id or folder. [embedded: SmolLM2-135M]")
    made.add_argument("--device", default="auto", help="cpu or cuda; auto takes a GPU where there is one. [auto]")
    made.add_argument("--steps", metavar="N", type=positive, help=f"Steps of every arm. [{usual.steps}]")
    made.add_argument("--jobs", metavar="N", type=positive, default=1, help="Arms at a time: one GPU holds many. [1]")
    made.add_argument("--quick", action="store_true", help="Lists or prose is all that people mind.")
    made.add_argument(
        "--tune", metavar="SECONDS", type=positive, help="First try settings for so long, on validation users."
    )
    made.add_argument("--wordings", metavar="N", type=positive, help="Train on N phrases and frames of each. [all]")
    made.add_argument("--table", action="store_true", help="Only show what DIR holds, as a Markdown table.")


def run(given: argparse.Namespace) -> int:
    """Does what the options ask for."""
    from rlhi.tastes import report

    if given.table:
        sys.stdout.write(report.table(report.load(given.work)))
        return 0
    given.work.mkdir(parents=True, exist_ok=True)
    config = settled(given)
    settings: Settings = chosen_in(given.work)
    if given.tune and not settings:
        settings = tune(given.work, config, given.jobs, given.tune)
    configs = [replace(config, seed=given.seed + number) for number in range(given.seeds)]
    places = measure_all(given.work, configs, settings, given.jobs)
    report.write(given.work, places)
    sys.stdout.write(report.table(report.load(given.work)))
    return 0


def settled(given: argparse.Namespace) -> TastesConfig:
    """The config of the first seed."""
    at_once = 288 if given.device == "cuda" else 32  # answers
    model = ModelConfig(id=given.model, device=given.device)
    config = TastesConfig(seed=given.seed, model=model, batch_size=at_once)
    asked = {"steps": given.steps, "wordings": given.wordings}
    training: dict[str, Any] = {name: value for name, value in asked.items() if value}
    if given.quick:
        training = {"steps": 50, "batch_size": 8, "lora_rank": 16, "learning_rate": 1e-3, **training}
        sampling = SamplingConfig(max_tokens=160)
        config = replace(config, dimensions=("structure",), users=8, turns=2, contrasts=16, sampling=sampling)
    return replace(config, training=replace(config.training, **training))


if __name__ == "__main__":
    sys.exit(main())

"""Shows whether persona-conditioned DPO personalizes, on simulated users whose tastes are known.

Trains DPO by each user's rule, DPO by the mean of all users, and SFT, on SmolLM2-135M, and tests them on users,
requests and wordings of personas that none of them saw. DIR/tastes.html shows what came out, DIR/results.json holds it.
What is done is kept in DIR: run the same again, and only what is missing is computed. On two CPU cores the whole takes
about two hours, --quick, which asks a smaller question, some minutes.

example:
  python -m rlhi.tastes --work out/tastes --jobs 2
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhi.argv import positive, rate
from rlhi.config import ModelConfig
from rlhi.errors import one_line
from rlhi.tastes.config import TastesConfig, TrainingConfig
from rlhi.tastes.work import measure_all, tune

QUICK = 40  # steps


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
    made.add_argument(
        "--jobs", metavar="N", type=positive, default=1, help="Arms at a time: one a core, and many on a GPU. [1]"
    )
    made.add_argument("--quick", action="store_true", help="Lists or prose is all that people mind.")
    made.add_argument(
        "--learning-rates",
        metavar="R",
        type=rate,
        nargs="+",
        help="Every arm tries them on validation users and keeps its best; one alone is taken as it is. [1e-3 2e-3]",
    )
    made.add_argument("--table", action="store_true", help="Only show what DIR holds, as a Markdown table.")


def run(given: argparse.Namespace) -> int:
    """Does what the options ask for."""
    from rlhi.tastes import report

    if given.table:
        sys.stdout.write(report.table(report.load(given.work)))
        return 0
    given.work.mkdir(parents=True, exist_ok=True)
    config = settled(given)
    configs = [replace(config, seed=given.seed + number) for number in range(given.seeds)]
    tried = tune(given.work, config, given.jobs)
    places = measure_all(given.work, configs, tried, given.jobs)
    report.write(given.work, places, tried)
    sys.stdout.write(report.table(report.load(given.work)))
    return 0


def settled(given: argparse.Namespace) -> TastesConfig:
    """The config of the first seed."""
    config = TastesConfig(seed=given.seed, model=ModelConfig(id=given.model, device=given.device))
    training: dict[str, Any] = {}
    if given.quick:
        config = replace(config, dimensions=("structure",), rates=config.rates[-1:], users=16, contrasts=16)
        training = {"steps": QUICK}
    if given.steps:
        training["steps"] = given.steps
    if given.learning_rates:
        config = replace(config, rates=tuple(given.learning_rates))
    return replace(config, training=replace(config.training, **training))


if __name__ == "__main__":
    sys.exit(main())

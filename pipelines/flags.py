"""The part of the command line that names a recipe or an experiment, and what is changed in it."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from pipelines import arms, variants
from pipelines.plan import Run

SETTINGS_HELP = "One setting, for instance dpo.epochs=1; give it again for more. 'rlhi STAGE --help' explains them."

REFERENCE_HELP = (
    "After how many rounds the reference of dpo becomes the policy of then, again and again; without it, the reference"
    " stays the base model."
)
SHARDS_HELP = (
    "Split each stage that asks a model, or the one named, by user into N tasks (1 to 64) that run before it, side by"
    " side on a cluster; the output is the same. Give it again for more. [1]"
)


def add_recipe(command: argparse.ArgumentParser, metavar: str = "RECIPE") -> None:
    """The flags that name a recipe, or what else ``metavar`` says, and change it."""
    command.add_argument("recipe", metavar=metavar, help="A name that 'python -m pipelines list' shows.")
    add_changes(command)
    command.add_argument("--promote", metavar="MODEL", help=PROMOTE_HELP)


def add_changes(command: argparse.ArgumentParser) -> None:
    """The flags that change a recipe, or every arm of an experiment that has what they change."""
    command.add_argument("--set", metavar="STAGE.FIELD=VALUE", action="append", default=[], help=SETTINGS_HELP)
    command.add_argument("--model", metavar="ID", help="Model instead of the default: Hugging Face id or folder.")
    command.add_argument("--seed", metavar="N", type=int, help="Seed of every stage.")
    command.add_argument(
        "--rounds", metavar="N", type=int, help="Rounds of sample, reward, rip and dpo: more than 1 is online training."
    )
    command.add_argument("--reference-every", metavar="N", type=int, help=REFERENCE_HELP)
    command.add_argument("--shards", metavar="[STAGE=]N", action="append", default=[], help=SHARDS_HELP)


PROMOTE_HELP = (
    "Then hold the model against the champion of this registered model in MLflow, or the base model if it has none yet,"
    " and make it champion if it passes the gate: see 'promote'."
)

R = TypeVar("R", bound=Run)


def run_of(given: argparse.Namespace, find: Callable[[str], R]) -> R:
    """What is named, looked up by ``find``, with what is changed.

    Raises:
        InputError: there is none of that name, or what is changed cannot be.
    """
    run = find(given.recipe)
    if given.model is not None:
        run = run.each(partial(variants.with_model, model=model_of(given.model)))
    if given.seed is not None:
        run = run.each(partial(variants.with_seed, seed=given.seed))
    run = arms.with_rounds(run, given.rounds, given.reference_every)
    run = _with_settings(run, given.set, getattr(given, "promote", None))
    run = arms.with_shards(run, given.shards)
    arms.check(run)
    return run


def _with_settings(run: R, settings: Sequence[str], promoted: str | None) -> R:
    """``run`` with the settings; where it is to be promoted, those of the gate over what follows from the others."""
    if promoted is None:
        return arms.with_settings(run, settings)
    late = [each for each in settings if each.strip().partition(".")[0] in ("safety", "promote")]
    run = arms.with_settings(run, [each for each in settings if each not in late])
    return arms.with_settings(arms.with_promotion(run, promoted), late)


def model_of(name: str) -> str:
    """``name`` as the stages find it: a local folder by its absolute path."""
    return str(Path(name).absolute()) if name and Path(name).is_dir() else name

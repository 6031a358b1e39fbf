"""`diff`: in what two recipes differ."""

import argparse
import json
from typing import Any

from rich.markup import escape
from rich.table import Table

from pipelines import experiments, summary, variants
from pipelines.recipes import Recipe

HELP = """\
Says in what two recipes, or arms of experiments, differ: the stages that only one of them runs, how often those in
rounds run, and every setting with both values. What is not listed is the same.

examples:
  python -m pipelines diff user-guided-rewrites no-filter
  python -m pipelines diff few-users all-users
"""
MISSING = "–"


def add(command: argparse.ArgumentParser) -> None:
    """The arguments of `diff`."""
    for name in ("one", "other"):
        command.add_argument(name, metavar="NAME", help="A recipe, or an arm of an experiment.")


def command(given: argparse.Namespace) -> int:
    """Prints the table; gives the exit code.

    Raises:
        InputError: there is no recipe or arm of a name.
    """
    one, other = experiments.arm(given.one), experiments.arm(given.other)
    found = differences(one, other)
    console = summary.console()
    if found:
        console.print(table(one.name, other.name, found))
    else:
        console.print(f"{one.name} and {other.name} do the same.", highlight=False)
    return 0


def differences(one: Recipe, other: Recipe) -> dict[str, tuple[str, str]]:
    """What differs, as a person reads it, with both values: stages, then rounds, then settings."""
    stages = [stage for stage in {**one.stages, **other.stages} if (stage in one.stages) != (stage in other.stages)]
    found = {stage: tuple("runs" if stage in each.stages else MISSING for each in (one, other)) for stage in stages}
    for name in ("rounds", "reference_every"):
        values = getattr(one, name), getattr(other, name)
        if values[0] != values[1]:
            found[name] = _texts(values)
    found |= {path: _texts(values) for path, values in variants.between(one, other).items()}
    return {name: (left, right) for name, (left, right) in found.items()}


def table(one: str, other: str, found: dict[str, tuple[str, str]]) -> Table:
    """The differences, a line each."""
    made = Table(title=f"{one} and {other}", title_justify="left")
    made.add_column("", style="bold", no_wrap=True)
    made.add_column(one, overflow="fold")
    made.add_column(other, overflow="fold")
    for name, values in found.items():
        made.add_row(name, *map(escape, values))
    return made


def _texts(values: tuple[Any, Any]) -> tuple[str, ...]:
    return tuple(value if isinstance(value, str) else json.dumps(value) for value in values)

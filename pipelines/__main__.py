"""`python -m pipelines`: recipes and experiments, run here or on a cluster; promotion; what is held of a user."""

import argparse
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import (
    diff,
    erasure,
    experiment,
    flags,
    listing,
    package,
    promotion,
    recipes,
    rollback,
    running,
    submit,
    summary,
)
from pipelines.experiments import EXPERIMENTS
from rlhi.argv import Parser
from rlhi.errors import one_line
from rlhi.ingest.identity import read_users

if TYPE_CHECKING:
    from pipelines import local

RUN_HELP = """\
Runs every stage of a recipe, one after the other, and ends with where the rows went, the win rates and the folders.
What is done is kept in DIR/store by content: run the same again, or another recipe, and only what is new is computed.

examples:
  python -m pipelines run user-guided-rewrites --source logs.jsonl --work out
  python -m pipelines run user-based-rewards --source 's3://bucket/logs/*.parquet' --work out --set sample.n=8
"""
FORGET_HELP = """\
Shows which outputs in DIR hold rows of the users that FILE names, one id a line: the source's ids or the hashed ones.
With --yes those outputs and all stored replies of models are deleted, and the users are added to DIR/forget.txt, whom
every later run in DIR leaves out. What was computed from their rows, models included, is computed again without them
by the next run.

Copies of reports and pictures go from the MLflow of DIR too; on another MLflow server, delete the runs there.
"""


@one_line
def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 when a stage failed, 2 after one line on bad input, 130 when interrupted."""
    words = sys.argv[1:] if argv is None else argv
    try:
        if (ended := experiment.other(words)) is not None:
            return ended
        given = parser().parse_args(words)
        commands = {
            "list": _list,
            "run": _run,
            "experiment": experiment.command,
            "diff": diff.command,
            "compile": package.write,
            "submit": submit.command,
            "promote": promotion.command,
            "rollback": rollback.command,
            "forget": _forget,
        }
        return commands[given.command](given)
    except KeyboardInterrupt:
        return running.stopped()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = Parser(prog="python -m pipelines", description="Named runs: conversations in, a preferred model out.")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    explained = partial(commands.add_parser, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands.add_parser("list", help="Show every recipe and experiment, and how they differ from the paper.")
    run = explained("run", help="Run a recipe on this machine.", description=RUN_HELP)
    flags.add_recipe(run)
    running.add(run)
    compared = explained(
        "experiment",
        help="Run several recipes as one, what they share once, and compare their models.",
        description=experiment.HELP,
    )
    experiment.add(compared)
    differing = explained("diff", help="Show in what two recipes differ.", description=diff.HELP)
    diff.add(differing)
    compiled = commands.add_parser("compile", help="Write a recipe or an experiment as a pipeline for a KFP server.")
    package.add(compiled)
    submitted = explained(
        "submit",
        help="Run a recipe or an experiment on a cluster, by its KFP server: once, or again and again.",
        description=submit.HELP,
    )
    submit.add(submitted)
    for name, module, told in (
        ("promote", promotion, "Make the model of a run champion in MLflow, if it passes the gate."),
        ("rollback", rollback, "Give the alias champion back to the version before."),
    ):
        module.add(explained(name, help=told, description=module.HELP))
    forget = explained("forget", help="Find and delete what a run folder holds of some users.", description=FORGET_HELP)
    forget.add_argument("users", metavar="FILE", help="User ids, one a line.")
    forget.add_argument("--work", metavar="DIR", type=Path, required=True, help="The folder of the runs.")
    forget.add_argument("--yes", action="store_true", help="Delete; without it, they are only shown.")
    return made


def _list(_: argparse.Namespace) -> int:
    console = summary.console()
    console.print(listing.recipes_table(recipes.RECIPES))
    console.print(listing.shared_text(recipes.RECIPES), highlight=False, markup=False)
    console.print(listing.experiments_table([*EXPERIMENTS, *experiment.OTHERS.values()]))
    return 0


def _run(given: argparse.Namespace) -> int:
    """Checks everything, then runs, then tells."""
    recipe = flags.run_of(given, recipes.find)

    def tell(progress: "local.Progress", work: Path, uri: str) -> None:
        summary.tell(progress.console, progress.done, work, uri)

    return running.here(recipe, given, partial(running.Parent, recipe), tell)


def _forget(given: argparse.Namespace) -> int:
    """Shows, and with --yes deletes, what is held of some users."""
    work, users = running.work_folder(given.work), read_users(running.absolute(given.users))
    found = erasure.holding(work, users)
    lines = erasure.table(found, work) or [f"{work}: no output holds rows of these users"]
    sys.stdout.write("\n".join(lines) + "\n")
    if given.yes:
        erasure.remove(work, found)
        replies = " and all stored replies" if erasure.remove_replies(work) else ""
        erasure.remove_checkpoints(work)
        kept = erasure.remember(work, users)
        sys.stdout.write(f"deleted {len(found)} outputs{replies}; later runs leave out who is listed in {kept}\n")
    elif found:
        sys.stdout.write("nothing is deleted yet: give --yes\n")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())

"""`python -m pipelines`: list recipes, run one here or on a cluster, compile one, promote a model, forget a user."""

import argparse
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import erasure, flags, keys, listing, package, promotion, recipes, rollback, submit, summary, variants
from pipelines.recipes import Recipe
from rlhi import tracking, undelivered
from rlhi.config import secret_variable
from rlhi.errors import InputError
from rlhi.ingest.identity import read_users
from rlhi.sources import list_files, uris

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


def main(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 when a stage failed, 2 after one line on bad input, 130 when interrupted."""
    try:
        given = parser().parse_args(argv)
        commands = {
            "list": _list,
            "run": _run,
            "compile": package.write,
            "submit": submit.command,
            "promote": promotion.command,
            "rollback": rollback.command,
            "forget": _forget,
        }
        return commands[given.command](given)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return _stopped()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = flags.Parser(prog="python -m pipelines", description="Named runs: conversations in, a preferred model out.")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("list", help="Show every recipe, what it runs and how it differs from the paper.")
    run = commands.add_parser(
        "run",
        help="Run a recipe on this machine.",
        description=RUN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_run(run)
    compiled = commands.add_parser("compile", help="Write a recipe as a pipeline that a KFP server takes.")
    package.add(compiled)
    submitted = commands.add_parser(
        "submit",
        help="Run a recipe on a cluster, by its KFP server: once, or again and again.",
        description=submit.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    submit.add(submitted)
    for name, module, told in (
        ("promote", promotion, "Make the model of a run champion in MLflow, if it passes the gate."),
        ("rollback", rollback, "Give the alias champion back to the version before."),
    ):
        module.add(
            commands.add_parser(
                name, help=told, description=module.HELP, formatter_class=argparse.RawDescriptionHelpFormatter
            )
        )
    forget = commands.add_parser(
        "forget",
        help="Find and delete what a run folder holds of some users.",
        description=FORGET_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    forget.add_argument("users", metavar="FILE", help="User ids, one a line.")
    forget.add_argument("--work", metavar="DIR", type=Path, required=True, help="The folder of the runs.")
    forget.add_argument("--yes", action="store_true", help="Delete; without it, they are only shown.")
    return made


def _add_run(run: argparse.ArgumentParser) -> None:
    flags.add_recipe(run)
    run.add_argument("--source", metavar="URI", required=True, help="Raw logs: a file, folder or glob, local or s3://.")
    run.add_argument("--work", metavar="DIR", type=Path, required=True, help="Where everything goes; kept for reuse.")
    run.add_argument(
        "--runner",
        choices=("process", "docker"),
        default="process",
        help="Stages as processes of this Python, or in their images over Docker or podman. [process]",
    )
    run.add_argument(
        "--forget", metavar="FILE", default="", help="User ids, one a line, whose rows are left out: see 'forget'."
    )
    run.add_argument(
        "--compare",
        metavar="URIS",
        default="",
        help="Datasets whose contexts analyze compares the logs' with, commas between them.",
    )
    run.add_argument(
        "--benchmarks",
        metavar="URIS",
        default="",
        help="Benchmarks whose items no training pair may hold, and that benchmark asks, commas between them.",
    )
    run.add_argument("--tracking-uri", metavar="URI", help="An MLflow server or store. [sqlite:///DIR/mlflow.db]")


def _list(_: argparse.Namespace) -> int:
    console = summary.console()
    console.print(listing.recipes_table(recipes.RECIPES))
    console.print(listing.shared_text(recipes.RECIPES), highlight=False, markup=False)
    return 0


def _run(given: argparse.Namespace) -> int:
    """Checks everything, then runs, then tells."""
    recipe, source, forget = flags.recipe_of(given), _source(given.source), _absolute(given.forget)
    read_users(forget)
    compare = ",".join(map(_source, uris(given.compare)))
    if compare and recipe.analyze is None:
        raise InputError(f"--compare: {recipe.name} does not run analyze, which compares; leave it out")
    benchmarks = ",".join(map(_source, uris(given.benchmarks)))
    if recipe.benchmark is not None and not benchmarks:
        raise InputError("benchmark: has nothing to ask; give --benchmarks, the files of the benchmarks")
    from pipelines import graph, local

    pipeline = graph.build(recipe)
    if given.runner == "docker":
        from pipelines import containers

        containers.check_images(local.images(pipeline))
    work = _work(given.work)
    forget = erasure.listed(work, forget)
    uri = given.tracking_uri or f"sqlite:///{work}/mlflow.db"
    parent = tracking.start_pipeline(recipe.name, _parameters(recipe, source), uri)
    env = {"RLHI_STORE": str(work / erasure.STORE), "MLFLOW_TRACKING_URI": uri, "RLHI_PARENT_RUN_ID": parent}
    kept = str(work / undelivered.FOLDER)
    env |= {undelivered.VARIABLE: kept, secret_variable("salt"): erasure.salt_of(work), **keys.variables(recipe)}
    named = (source, forget, *uris(compare), *uris(benchmarks), flags.model_of(given.model or ""))
    read = [*(path for each in named for path in _local_paths(each)), *keys.files(recipe)]
    place = local.Place(work, given.runner, read, env)
    arguments = {"source": source, "forget": forget, "compare": compare, "benchmarks": benchmarks}
    progress = local.Progress(summary.console(), work, recipe.tasks)
    succeeded = False
    try:
        local.run(pipeline, arguments, place, progress)
        succeeded = progress.failed is None and not progress.interrupted
    finally:
        tracking.finish_pipeline(parent, progress.manifests, uri, failed=not succeeded, place=kept)
    return _tell(progress, work, uri)


def _forget(given: argparse.Namespace) -> int:
    """Shows, and with --yes deletes, what is held of some users."""
    work, users = _work(given.work), read_users(_absolute(given.users))
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


def _source(uri: str) -> str:
    """``uri`` with a local path made absolute, since the stages may run elsewhere.

    Raises:
        InputError: nothing that can be read is there.
    """
    source = _absolute(uri)
    list_files(source)
    return source


def _absolute(uri: str) -> str:
    return uri if "://" in uri or not uri else os.path.abspath(os.path.expanduser(uri))


def _work(folder: Path) -> Path:
    work = folder.expanduser().absolute()
    try:
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work):
            pass
    except OSError as error:
        raise InputError(f"{work}: cannot be written ({error.strerror}); choose another --work") from None
    return work


def _parameters(recipe: Recipe, source: str) -> dict[str, str]:
    """What MLflow shows of the run: the source, the rounds, and every setting that is not the paper's."""
    rounds = {"rounds": str(recipe.rounds), "reference_every": str(recipe.reference_every)} if recipe.rounds > 1 else {}
    return {"source": source} | rounds | {path: str(value) for path, value in variants.differences(recipe).items()}


def _local_paths(uri: str) -> list[Path]:
    """The local path that holds what ``uri`` names: of a glob, the folder before its first mark."""
    path = uri.removeprefix("file://")
    plain = re.split(r"[*?\[]", path)[0]
    held = Path(path if plain == path else os.path.dirname(plain))
    return [held] if path.startswith("/") else []


def _tell(progress: "local.Progress", work: Path, uri: str) -> int:
    """The last words of a run, and its exit code."""
    if progress.interrupted:
        return _stopped()
    if progress.failed is not None:
        sys.stderr.write(
            f"error: stage {progress.failed} failed, see above; run the same again once that is mended,"
            " what is done is reused\n"
        )
        return 1
    summary.tell(progress.console, progress.done, work, uri)
    return 0


def _stopped() -> int:
    sys.stderr.write("stopped; run the same again to go on from the last finished stage\n")
    return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())

"""`python -m pipelines rollback`: gives the alias champion back to the version before."""

import argparse
import sys
from pathlib import Path

from rlhi.promote.registry import Registry, registry_uri
from rlhi.promote.rollback import rollback

HELP = """\
Moves the alias champion of a registered model back to the version that was champion before, as the tags of the versions
say, or to another one that once was. Nothing is deleted.

examples:
  python -m pipelines rollback rlhi --work out --dry-run
  python -m pipelines rollback rlhi --tracking-uri http://mlflow:5000 --to 3
"""


def add(command: argparse.ArgumentParser) -> None:
    """The flags."""
    command.add_argument("model", metavar="MODEL", help="Name of the registered model.")
    command.add_argument("--to", metavar="VERSION", help="A version that was champion. [the one before]")
    command.add_argument("--dry-run", action="store_true", help="Say what would be moved, and move nothing.")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--tracking-uri", metavar="URI", help="The MLflow server or store. [$MLFLOW_TRACKING_URI]")
    where.add_argument("--work", metavar="DIR", type=Path, help="Take the MLflow store of this folder of runs.")


def command(given: argparse.Namespace) -> int:
    """Rolls back; 0, or an `InputError` where there is nothing to go back to."""
    own = None if given.work is None else store_of(given.work)
    registry = Registry(given.model, registry_uri(given.tracking_uri or own))
    sys.stdout.write(f"{rollback(registry, given.to, dry_run=given.dry_run)}\n")
    return 0


def store_of(work: Path) -> str:
    """The MLflow store of a folder of runs."""
    return f"sqlite:///{work.expanduser().absolute()}/mlflow.db"

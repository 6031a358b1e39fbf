"""Tells MLflow what it has not got while it was away, of stages and pipelines that have ended since.

The stages and the end of a pipeline do this by themselves; this is for what is left when the last of them has ended.

examples:
  python -m rlhi.deliver work/demo/undelivered --tracking-uri http://localhost:5000
  MLFLOW_TRACKING_URI=http://mlflow:5000 python -m rlhi.deliver s3://bucket/rlhi/undelivered
"""

import argparse
import os
import sys
from collections.abc import Sequence

from rlhi.errors import InputError, one_line
from rlhi.tracking import deliver


@one_line
def main(argv: Sequence[str] | None = None) -> int:
    """0 when nothing is left, 1 when something is, 2 after one line on bad input."""
    given = parser().parse_args(argv)
    if not given.tracking_uri:
        raise InputError("--tracking-uri: is missing; give the address of MLflow, or set MLFLOW_TRACKING_URI")
    sent, left = deliver(given.place, given.tracking_uri)
    sys.stderr.write(f"{given.place}: {sent} delivered, {left} left\n")
    return 1 if left else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m rlhi.deliver", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("place", metavar="PLACE", help="Folder or s3:// prefix where it is kept.")
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    made.add_argument("--tracking-uri", metavar="URI", default=uri, help="Of MLflow. [$MLFLOW_TRACKING_URI]")
    return made


if __name__ == "__main__":
    sys.exit(main())

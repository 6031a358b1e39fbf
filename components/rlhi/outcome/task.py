"""Writes down how a run went; of a recurring run that succeeded, what it has read is seen then.

KFP runs this last, however the run went, and gives it the final status as JSON. A status that cannot be read is written
down as unknown, with its text, and moves no watermark.
"""

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from rlhi import tracking, undelivered, watermark
from rlhi.config import from_flag, from_text, parse
from rlhi.engine.s3.bucket import Bucket
from rlhi.errors import InputError
from rlhi.outcome.config import OutcomeConfig

PATIENCE = 120.0  # seconds
SUCCEEDED = ("SUCCEEDED", "COMPLETE")  # what KFP, and the store behind it, call it


def main(argv: Sequence[str]) -> int:
    """``rlhi outcome``: 0 when it is written down, whatever the outcome.

    Raises:
        InputError: a config that cannot be, or nowhere to write.
    """
    flags = parser().parse_args(argv)
    given = from_flag(flags.config)
    config = parse(OutcomeConfig, given, "outcome")
    place = os.environ.get(watermark.VARIABLE) or None
    described = describe(flags.status, config.recipe)
    succeeded = described["state"] in SUCCEEDED
    described["nothing_new"] = place is not None and succeeded and not watermark.taken(place)
    name = f"{described['run'] or described['ended_at']}.json"
    Bucket(config.place).put(name, json.dumps(described, indent=2).encode(), PATIENCE)
    sys.stderr.write(f"outcome: {described['state']}, written to {config.place}/{name}\n")
    _deliver()
    if described["nothing_new"]:
        sys.stderr.write("outcome: there was nothing new to read\n")
    elif place is not None:
        moved = watermark.advance(place, succeeded=succeeded)
        sys.stderr.write(f"outcome: the watermark {'has moved' if moved else 'stays'}\n")
    return 0


def _deliver() -> None:
    """Gives MLflow what it has not got from this run's tasks, and from earlier runs'; it may stay away."""
    place, uri = os.environ.get(undelivered.VARIABLE), os.environ.get("MLFLOW_TRACKING_URI")
    if not place or not uri:
        return
    try:
        sent, left = tracking.deliver(place, uri)
    except InputError as error:
        sys.stderr.write(f"outcome: MLflow is not told what waits for it: {error}\n")
    else:
        if sent or left:
            sys.stderr.write(f"outcome: MLflow is told of {sent} runs that waited for it, {left} wait in {place}\n")


def parser() -> argparse.ArgumentParser:
    """The flags of ``rlhi outcome``."""
    made = argparse.ArgumentParser(
        prog="rlhi outcome", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--status", metavar="JSON", default="", help="The final status, as KFP gives it.")
    made.add_argument("--config", metavar="JSON", required=True, help="Where to write, as one JSON object.")
    return made


def describe(status: str, recipe: str) -> dict[str, Any]:
    """What is written down of a run."""
    read = from_text(status)
    known = isinstance(read, dict) and isinstance(read.get("state"), str)
    return {
        "run": os.environ.get("RLHI_RUN_ID", ""),
        "recipe": recipe,
        "state": read["state"] if known else "unknown",
        "error": read.get("error") if known else status,
        "ended_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }

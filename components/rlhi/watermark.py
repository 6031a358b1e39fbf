"""What recurring runs have read already, so that each reads only files that are new or have changed.

``RLHI_WATERMARK`` names a folder of one recurring run on S3. A run leaves out the files that its ``seen.json`` lists
with their sizes and times, and writes what would be seen after it as ``pending/RUN.json``. Only the last task of a run
that succeeded makes that the new ``seen.json``; what a failed run has read is read again.

Where nothing is new, ingest writes no rows and the note `NOTE`, and so does every stage that reads what it wrote,
without being run: the run succeeds, and asks no model.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

from rlhi.config import digest
from rlhi.engine.s3.bucket import Bucket
from rlhi.errors import InputError
from rlhi.sources import SourceFile

VARIABLE = "RLHI_WATERMARK"
SEEN = "seen.json"
NOTE = "nothing new"
PATIENCE = 30.0  # seconds


class NothingNewError(InputError):
    """All that there is has been read."""


def unseen(uri: str, files: Sequence[SourceFile]) -> list[SourceFile]:
    """Those of the files of ``uri`` that no successful run has read as they are; all where there is no watermark.

    Raises:
        NothingNewError: none is new.
        InputError: the watermark cannot be read.
    """
    place = os.environ.get(VARIABLE)
    if not place:
        return list(files)
    seen = _load(Bucket(place), SEEN)
    new = [file for file in files if seen.get(file.path) != _state(file)]
    if not new:
        raise NothingNewError(f"{uri}: none of its {len(files)} files is new since the last run that succeeded")
    return new


def take(uri: str, files: Sequence[SourceFile]) -> list[SourceFile]:
    """As `unseen`, and writes down for `advance` that this run reads them.

    Raises:
        NothingNewError: none is new.
        InputError: the watermark cannot be read or written.
    """
    new, place = unseen(uri, files), os.environ.get(VARIABLE)
    if place:
        taken = {file.path: _state(file) for file in files}
        Bucket(place).put(_pending(), json.dumps(taken).encode(), PATIENCE)
    return new


def digests() -> dict[str, str]:
    """What of the watermark decides on an output: by name, the digest of what was seen."""
    place = os.environ.get(VARIABLE)
    return {"watermark": digest(json.dumps(_load(Bucket(place), SEEN), sort_keys=True))} if place else {}


def taken(place: str) -> bool:
    """Whether this run has read something new."""
    return Bucket(place).get(_pending(), PATIENCE).body is not None


def advance(place: str, *, succeeded: bool) -> bool:
    """Ends what this run has taken: it is seen where the run succeeded. Whether the watermark has moved."""
    at = Bucket(place)
    taken = at.get(_pending(), PATIENCE).body
    moved = succeeded and taken is not None
    if moved and taken is not None:
        at.put(SEEN, taken, PATIENCE)
    at.delete([_pending()], PATIENCE)
    return moved


def _load(at: Bucket, name: str) -> Any:
    body = at.get(name, PATIENCE).body
    try:
        return json.loads(body) if body is not None else {}
    except ValueError:
        raise InputError(f"{at.url}/{name}: is no JSON; delete it, and the next run reads everything") from None


def _pending() -> str:
    run = os.environ.get("RLHI_RUN_ID")
    if not run:
        raise InputError(f"{VARIABLE} is set and RLHI_RUN_ID is not; each run of a recurring run needs its own id")
    return f"pending/{run}.json"


def _state(file: SourceFile) -> list[int]:
    return [file.size, file.changed]

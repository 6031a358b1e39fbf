"""Whether a checkpoint is whole: each node that wrote to it lists its files last, with sizes and digests.

So no file needs to be written at once: without the listings of all nodes there is no checkpoint, be it in a folder or
on S3, and a file that is not as listed is damaged.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

KEPT = 2  # the newest and one more, should the newest be damaged


class DamagedError(Exception):
    """A checkpoint that cannot be used; says why."""


class UnfinishedError(DamagedError):
    """One that lacks listings: whoever wrote it was killed."""


@dataclass(frozen=True)
class Listing:
    """What one of ``nodes`` wrote: file names with their bytes and xxh3 (128 bits)."""

    fingerprint: str
    nodes: int
    files: dict[str, tuple[int, str]]

    def encode(self) -> bytes:
        """As it is written."""
        return json.dumps(asdict(self), indent=1).encode()


def name_of(step: int) -> str:
    """Trainer's name of the checkpoint of a step."""
    return f"checkpoint-{step}"


def step_of(name: str) -> int | None:
    """The step of a checkpoint's name; none where it is another name."""
    found = re.fullmatch(r"checkpoint-(\d+)", name)
    return int(found[1]) if found else None


def listing_name(node: int) -> str:
    """The name of one node's listing."""
    return f"listing-{node}.json"


def is_listing(name: str) -> bool:
    """Whether a file in a checkpoint is a listing."""
    return re.fullmatch(r"listing-\d+\.json", name) is not None


def make(folder: Path, fingerprint: str, nodes: int) -> Listing:
    """Lists the files that lie in a checkpoint now."""
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {name: _measure(folder / name) for name in names if not is_listing(name)}
    return Listing(fingerprint, nodes, files)


def write(path: Path, body: bytes) -> None:
    """Puts a listing into its place at once."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(body)
    os.replace(partial, path)


def decode(bodies: Iterable[bytes]) -> list[Listing]:
    """The listings of one checkpoint, from their text.

    Raises:
        UnfinishedError: not all nodes have written theirs.
        DamagedError: one is not as it was written.
    """
    try:
        listings = [Listing(**json.loads(body)) for body in bodies]
    except (ValueError, TypeError) as error:
        raise DamagedError(f"a listing cannot be read ({error})") from None
    if not listings or len(listings) != listings[0].nodes:
        raise UnfinishedError(f"was not finished ({len(listings)} listings)")
    return listings


def verify(folder: Path, listings: Iterable[Listing]) -> None:
    """Compares files with what is listed.

    Raises:
        DamagedError: one is missing or another.
    """
    for each in listings:
        for name, listed in each.files.items():
            path = folder / name
            if not path.is_file():
                raise DamagedError(f"{name} is missing")
            if path.stat().st_size != listed[0] or _measure(path) != tuple(listed):
                raise DamagedError(f"{name} is not as it was written")


def old(found: Mapping[int, int], needed: int, best: int | None) -> list[int]:
    """The steps before the newest two that have ``needed`` listings, but for the ``best``.

    ``found`` has the number of listings of each step.
    """
    newest = sorted(step for step, count in found.items() if count >= needed)[-KEPT:]
    return [step for step in found if newest and step < newest[0] and step != best]


def _measure(path: Path) -> tuple[int, str]:
    with open(path, "rb") as file:
        return path.stat().st_size, str(hashlib.file_digest(file, xxhash.xxh3_128).hexdigest())

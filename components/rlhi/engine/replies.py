"""Where the replies of models are kept, so that none is asked for twice: a local file, or S3."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from rlhi.engine import store

REMOTE = "s3://"


class Replies(Protocol):
    """Values by key, for one thread. ``place`` is for messages; ``pause`` is how long to wait, in seconds, between two
    looks at what another worker was asked for."""

    place: str
    pause: float

    def find(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
        """The values that are there, in any order."""

    def put(self, key: bytes, value: str) -> None:
        """Keeps a value. The first value of a key stays."""

    def claim(self, keys: Sequence[bytes]) -> AbstractContextManager[list[bytes]]:
        """Claims those of ``keys`` that are neither kept nor claimed by a living worker, until the end of the block."""


def configured() -> str | None:
    """``RLHI_REPLIES``, or the file in the folder of ``RLHI_STORE``; none without either."""
    named, folder = os.environ.get("RLHI_REPLIES"), os.environ.get("RLHI_STORE")
    return named or (str(Path(folder) / store.NAME) if folder else None)


def open_replies(identity: str) -> Replies | None:
    """The configured store, for the engine of this identity; none where none is configured.

    Raises:
        InputError: it cannot be used.
    """
    where = configured()
    if where is None:
        return None
    if where.startswith(REMOTE):
        from rlhi.engine.s3.store import SharedStore

        return SharedStore(where, identity)
    return store.Store(Path(where))


def delete(where: str) -> bool:
    """Deletes the replies of every engine at one place, and local copies of those on S3; whether there were any.

    Raises:
        InputError: the server stays away or refuses.
        OSError: a file cannot be deleted.
    """
    if not where.startswith(REMOTE):
        return store.delete(Path(where))
    from rlhi.engine.s3 import copy
    from rlhi.engine.s3.store import erase

    copies = sum(1 for path in copy.abandoned(copy.root()) if path.exists())
    return erase(where) or copies > 0

"""The local copy of what is on S3: a file for each process, deleted at its end.

That of a process that was killed, or that could not send its last replies, stays; the next one on this machine that
opens the same store sends what is in it.
"""

import fcntl
import os
import uuid
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from rlhi.engine import store
from rlhi.engine.embedded import cache_root
from rlhi.engine.store import Store
from rlhi.errors import InputError

MOVED_BY = "RLHI_CACHE"


class Unsent(Protocol):
    """What tells how many replies are in the copy only."""

    @property
    def unsent(self) -> int:
        """Their number."""


def root() -> Path:
    """Where the copies of all stores are."""
    return cache_root() / "replies"


def open_copy(folder: Path, sender: Unsent) -> Store:
    """A new copy in ``folder``, which stays if, at its end, ``sender`` has something left.

    Raises:
        InputError: nothing can be written there.
    """
    path = folder / f"{uuid.uuid4().hex}.sqlite"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); set {MOVED_BY} to another folder") from None
    fcntl.flock(lock, fcntl.LOCK_EX)
    copy = Store(path, MOVED_BY)
    weakref.finalize(copy, _end, path, lock, sender)
    return copy


def abandoned(folder: Path) -> Iterator[Path]:
    """Copies below ``folder`` that no process has open; each is deleted when the next is asked for."""
    for lock in sorted(folder.rglob("*.lock")):
        try:
            held = os.open(lock, os.O_RDWR)
        except FileNotFoundError:  # its process has just ended
            continue
        try:
            with suppress(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield lock.with_suffix(".sqlite")
                _delete(lock.with_suffix(".sqlite"))
        finally:
            os.close(held)


def _end(path: Path, lock: int, sender: Unsent) -> None:
    if not sender.unsent:
        _delete(path)
    os.close(lock)


def _delete(path: Path) -> None:
    store.delete(path)
    path.with_suffix(".lock").unlink(missing_ok=True)

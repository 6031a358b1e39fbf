"""What MLflow has not got because it was away: a file for each run, in a folder or on S3, until somebody delivers it.

``RLHI_UNDELIVERED`` names the place, which stages have in common; without it, it is a folder beside the output.
"""

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rlhi.engine.s3.bucket import NEW, Bucket, ConflictError, same
from rlhi.errors import InputError

VARIABLE = "RLHI_UNDELIVERED"
FOLDER = "undelivered"
PATIENCE = 30.0  # seconds for S3
STALE = 900.0  # seconds after which whoever delivers from S3 is taken for dead
LEASE = "lease"


class Spool(Protocol):
    """Texts by name. All raise `InputError` where the place cannot be used."""

    def names(self) -> list[str]:
        """The oldest first."""

    def read(self, name: str) -> str:
        """One text."""

    def write(self, name: str, text: str) -> None:
        """Writes one, all of it or nothing."""

    def drop(self, name: str) -> None:
        """Deletes one."""

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else delivers from here meanwhile."""


def place_of(output: Path) -> str:
    """Where what a stage says is kept."""
    return os.environ.get(VARIABLE) or str(output.parent / FOLDER)


def open_spool(place: str) -> Spool:
    """The spool at a folder or an s3:// prefix."""
    return _Remote(Bucket(place)) if place.startswith("s3://") else _Local(Path(place))


def new_name(title: str) -> str:
    """A name that no other process gives, in the order of time."""
    return f"{time.time_ns():020d}-{title.replace(' ', '-').replace('/', '-')}-{uuid.uuid4().hex[:8]}.json"


class _Local:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob("*.json"))

    def read(self, name: str) -> str:
        with _told(self._folder):
            return (self._folder / name).read_text()

    def write(self, name: str, text: str) -> None:
        with _told(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = self._folder / f".{name}"
            partial.write_text(text)
            partial.replace(self._folder / name)

    def drop(self, name: str) -> None:
        with _told(self._folder):
            (self._folder / name).unlink()

    @contextmanager
    def alone(self) -> Iterator[bool]:
        with _told(self._folder):
            lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield _locked(lock)
        finally:
            os.close(lock)


class _Remote:
    def __init__(self, bucket: Bucket) -> None:
        bucket.patience = PATIENCE
        self._bucket = bucket

    def names(self) -> list[str]:
        return [name for name in self._bucket.names("") if name.endswith(".json")]

    def read(self, name: str) -> str:
        return (self._bucket.get(name).body or b"").decode()

    def write(self, name: str, text: str) -> None:
        self._bucket.put(name, text.encode())

    def drop(self, name: str) -> None:
        self._bucket.delete([name])

    @contextmanager
    def alone(self) -> Iterator[bool]:
        mine = self._lease()
        try:
            yield mine
        finally:
            if mine:
                self._bucket.delete([LEASE])

    def _lease(self) -> bool:
        try:
            self._bucket.put(LEASE, b"", condition=NEW)
        except ConflictError:
            held = self._bucket.objects(LEASE).get(LEASE)
            if held is None or self._bucket.get(LEASE).time - held.changed < STALE:
                return False
            return self._take(held.tag)
        return True

    def _take(self, tag: str) -> bool:
        try:
            self._bucket.put(LEASE, b"", condition=same(tag))
        except ConflictError:
            return False
        return True


def _locked(lock: int) -> bool:
    """The system lets go of the lock of a process that is killed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror}; set {VARIABLE} to another folder, or to s3://BUCKET/PREFIX"
        ) from None

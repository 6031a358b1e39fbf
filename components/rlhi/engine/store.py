"""Keeps every reply of a model in one local SQLite file, as it arrives, so that none is asked for twice.

A reply is found by what it depends on. Two processes that need the same share it: what is missing is claimed before it
is asked for, and who finds it claimed waits. A claim ends when its worker is done; that of a worker that died is free
at once on the same host, and elsewhere when its lease has run out.

The file is in WAL mode and must be on a local disk. Each value is a transaction of its own: what was kept survives
``kill -9``, and there is nothing left to save at the end.
"""

import os
import socket
import sqlite3
import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from rlhi.errors import InputError

NAME = "replies.sqlite"
OURS = 0x726C6869  # "rlhi", in the header of the file
LAYOUT = 1
TABLES = (
    "CREATE TABLE replies (key BLOB PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE workers (id INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT, pid INTEGER, start TEXT, until REAL)",
    "CREATE TABLE claims (key BLOB PRIMARY KEY, worker INTEGER NOT NULL) WITHOUT ROWID",
)
BUSY = 60.0  # seconds that a writer waits for others
LEASE = 60.0  # seconds; renewed three times as often
PAUSE = 0.2  # seconds between looks at what another process was asked for
START = uuid.uuid4().hex  # a container that starts again has the same host and pid
AT_ONCE = 500  # keys looked up by one statement


def delete(path: Path) -> bool:
    """Deletes a store with what SQLite keeps beside it; false where there is none."""
    # the file itself last: a log that outlived it would be taken for that of the next one
    found = [each for each in (path.with_name(path.name + end) for end in ("-wal", "-shm", "")) if each.exists()]
    for each in found:
        each.unlink()
    return bool(found)


class Store:
    """Values by key, for one thread: see `rlhi.engine.replies`. ``moved_by`` is the variable that names another place.

    Raises:
        InputError: the file cannot be used: no room, no right to write, not ours, broken, or of another layout.
    """

    def __init__(self, path: Path, moved_by: str = "RLHI_REPLIES") -> None:
        self.path = path
        self.place = str(path)
        self.pause = PAUSE
        self._moved_by = moved_by
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _connect(path)
            weakref.finalize(self, self._db.close)
            self._prepare()

    def find(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
        """The values that are there, in any order."""
        for some in _chunks(keys):
            with self._explained():
                rows = self._db.execute(f"SELECT key, value FROM replies WHERE key IN ({_marks(some)})", some)  # noqa: S608
                found = rows.fetchall()
            yield from found

    def put(self, key: bytes, value: str) -> None:
        """Keeps a value and ends the claim on it. The first value of a key stays."""
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", (key, value))
            db.execute("DELETE FROM claims WHERE key = ?", (key,))

    def add(self, rows: Iterable[tuple[bytes, str]]) -> None:
        """Keeps many values at once. The first value of a key stays."""
        with self._writing() as db:
            db.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?)", rows)

    def rows(self) -> Iterator[tuple[bytes, str]]:
        """All values, in any order."""
        with self._explained():
            yield from self._db.execute("SELECT key, value FROM replies")

    @contextmanager
    def claim(self, keys: Sequence[bytes]) -> Iterator[list[bytes]]:
        """Claims those of ``keys`` that are neither kept nor claimed by a living worker, until the end of the block."""
        worker, mine = self._claimed(keys)
        if worker is None:
            yield mine
            return
        done = threading.Event()
        renewal = threading.Thread(target=self._renew, args=(worker, done), daemon=True)
        renewal.start()
        try:
            yield mine
        finally:
            done.set()
            renewal.join()
            with self._writing() as db:
                _forget(db, [worker])

    def _claimed(self, keys: Sequence[bytes]) -> tuple[int | None, list[bytes]]:
        """A new worker and its keys; no worker where there is nothing to claim."""
        if not self._free(keys, self._dead()):  # who waits looks often, and must not lock out who works
            return None, []
        with self._writing() as db:
            dead = self._dead()
            _forget(db, dead)
            mine = self._free(keys, dead)
            worker = db.execute(
                "INSERT INTO workers (host, pid, start, until) VALUES (?, ?, ?, ?)",
                (socket.gethostname(), os.getpid(), START, time.time() + LEASE),
            ).lastrowid
            db.executemany("INSERT INTO claims VALUES (?, ?)", [(key, worker) for key in mine])
        return worker, mine

    def _dead(self) -> set[int]:
        with self._explained():
            workers = self._db.execute("SELECT * FROM workers").fetchall()
        return {
            worker for worker, host, pid, start, until in workers if not alive(host, pid, start, until, time.time())
        }

    def _free(self, keys: Sequence[bytes], dead: set[int]) -> list[bytes]:
        """Those that are neither kept nor claimed by the living, in order."""
        taken = {key for key, _ in self.find(keys)}
        for some in _chunks(keys):
            with self._explained():
                claims = self._db.execute(f"SELECT key, worker FROM claims WHERE key IN ({_marks(some)})", some)  # noqa: S608
                taken |= {key for key, worker in claims if worker not in dead}
        return [key for key in keys if key not in taken]

    def _renew(self, worker: int, done: threading.Event) -> None:
        while not done.wait(LEASE / 3):
            # where nothing can be written, the next value says so
            with suppress(sqlite3.Error), closing(_connect(self.path)) as db:
                db.execute("UPDATE workers SET until = ? WHERE id = ?", (time.time() + LEASE, worker))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._db.rollback()
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what SQLite says into one line that names the file and the way out."""
        path, elsewhere = self.path, f"set {self._moved_by} to another place"
        try:
            yield
        except sqlite3.OperationalError as error:  # no room, no right, no folder, or locked for long
            raise InputError(
                f"{path}: replies cannot be stored there ({error}); make room or give the right to write, or"
                f" {elsewhere}. What was stored stays"
            ) from None
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{path}: is no store of replies, or broken ({error}); delete it (its replies are asked for again), or"
                f" {elsewhere}"
            ) from None
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); {elsewhere}") from None

    def _prepare(self) -> None:
        """Makes the tables of a new file; refuses a file that is another's before anything in it is changed."""
        self._db.execute("BEGIN")  # one look: another process may be making the file
        known = self._check()
        self._db.execute("COMMIT")
        if known:
            return
        _set_wal(self._db)
        with self._writing() as db:
            if not self._check():  # else another process was first
                for table in TABLES:
                    db.execute(table)
                db.execute(f"PRAGMA application_id = {OURS}")
                db.execute(f"PRAGMA user_version = {LAYOUT}")

    def _check(self) -> bool:
        """Whether the file is a store; false for a new one."""
        (ours,), (layout,) = (
            self._db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not (ours or layout or tables):
            return False
        if ours != OURS:
            raise InputError(
                f"{self.path}: is a database, but no store of replies; set {self._moved_by} to another place"
            )
        if layout != LAYOUT:
            raise InputError(
                f"{self.path}: has layout {layout} of the store of replies, this is {LAYOUT}; delete the file (its"
                f" replies are asked for again), or set {self._moved_by} to another place"
            )
        return True


def _connect(path: Path) -> sqlite3.Connection:
    # closed by whatever thread the garbage is collected in; used by one
    db = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous = NORMAL")  # a power cut can cost the last values, and nothing else
    return db


def _set_wal(db: sqlite3.Connection) -> None:
    """Sets the mode of the file. SQLite does not wait for others here, so this does."""
    until = time.monotonic() + BUSY
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _forget(db: sqlite3.Connection, workers: Iterable[int]) -> None:
    for worker in workers:
        db.execute("DELETE FROM claims WHERE worker = ?", (worker,))
        db.execute("DELETE FROM workers WHERE id = ?", (worker,))


def alive(host: str, pid: int, start: str, until: float, now: float) -> bool:
    """Whether a worker is to be reckoned with: its lease runs, and on this host its process is there."""
    if until < now:
        return False
    if host != socket.gethostname():
        return True
    if pid == os.getpid():
        return start == START
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _chunks(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE))


def _marks(keys: Sequence[bytes]) -> str:
    return ",".join("?" * len(keys))

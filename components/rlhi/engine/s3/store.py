"""The store of replies on S3, which workers on many machines share.

Under ``rlhi-replies/LAYOUT/ENGINE/``: ``parts/``, see `rlhi.engine.s3.parts`, and the claims, see
`rlhi.engine.s3.claims`. A worker fetches at its start what is there into a local copy, and sends what it adds every
`EVERY` seconds or `ROWS` replies, and when its claim ends, be it by an error. So ``kill -9`` costs what was not sent
yet, and on a machine that keeps its disk not even that.

A server that is away for a while is waited for, and the stage goes on meanwhile; after ten minutes it ends.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from rlhi.config import digest
from rlhi.engine.s3 import claims, copy, parts
from rlhi.engine.s3.bucket import LONGEST_WAIT, AwayError, Bucket, Found
from rlhi.engine.store import Store
from rlhi.errors import InputError

log = logging.getLogger("rlhi")
FOLDER = "rlhi-replies"
LAYOUT = 1
PAUSE = 2.0  # seconds between looks at what another worker was asked for
LAST = 5.0  # seconds of patience where a stage ends by an error, or is told to stop: a pod has thirty
FETCHED = 8  # parts at once


def erase(url: str) -> bool:
    """Deletes the stores of all engines below ``url``, and nothing else; whether there was anything."""
    return Bucket(f"{url.rstrip('/')}/{FOLDER}").erase("")


class SharedStore:
    """Values by key, for one thread: see `rlhi.engine.replies`.

    Raises:
        InputError: the server stays away, refuses, or knows no conditional writes; or the local copy cannot be written.
    """

    def __init__(self, url: str, identity: str) -> None:
        self.place = f"{url.rstrip('/')}/{FOLDER}/{LAYOUT}/{digest(identity)}"
        self.pause = PAUSE
        self._bucket = Bucket(self.place)
        self._bucket.check()
        self._claims = claims.Claims(self._bucket)
        self._sender = parts.Sender(self._bucket)
        self._error: InputError | None = None
        self._loaded: set[str] = set()
        folder = copy.root() / digest(self.place)
        self._copy = copy.open_copy(folder, self._sender)
        self._fetch()
        log.info("%s: %d parts fetched", self.place, len(self._loaded))
        self._adopt(folder)

    def find(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
        """The values that were there at the last claim, in any order."""
        return self._copy.find(keys)

    def put(self, key: bytes, value: str) -> None:
        """Keeps a value; to be called under a claim. The first value of a key stays.

        Raises:
            InputError: nothing could be sent for long.
        """
        self._copy.put(key, value)
        self._sender.add(key, value)
        if self._error is not None:
            raise self._error

    @contextmanager
    def claim(self, keys: Sequence[bytes]) -> Iterator[list[bytes]]:
        """Claims those of ``keys`` that are neither kept nor claimed by a living worker, until the end of the block."""
        worker, mine = self._claims.take(keys, self._missing)
        if not mine:
            yield mine
            return
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(worker, done), daemon=True)
        keeper.start()
        try:
            yield mine
        except BaseException:
            self._stop(keeper, done)
            try:
                self._finish(worker, LAST)
            except InputError as error:  # what the user should hear of is what went wrong before
                log.warning("%s", str(error))
            raise
        self._stop(keeper, done)
        self._finish(worker, self._bucket.patience)

    def _stop(self, keeper: threading.Thread, done: threading.Event) -> None:
        done.set()
        self._sender.full.set()  # it sleeps until then
        keeper.join()

    def _finish(self, worker: str, patience: float) -> None:
        """Sends what is left and only then gives the claim up."""
        try:
            self._sender.send(patience)
            self._claims.leave(worker, patience)
        except InputError as error:
            kept = f"; {self._sender.unsent} replies wait in {self._copy.path} for the next start on this machine"
            raise InputError(f"{error}{kept if self._sender.unsent else ''}") from None

    def _keep(self, worker: str, done: threading.Event) -> None:
        """Sends and renews while the stage works, in a thread of its own."""
        heard = renewed = time.monotonic()
        while not done.is_set():
            self._sender.full.wait(min(parts.EVERY, claims.LEASE / 3))
            try:
                self._sender.send(0)
                if time.monotonic() - renewed >= claims.LEASE / 3:
                    self._claims.renew(worker, 0)
                    renewed = time.monotonic()
                heard = time.monotonic()
            except AwayError as error:
                silent = time.monotonic() - heard
                log.warning("%s; %d replies wait in %s", str(error), self._sender.unsent, self._copy.path)
                if silent > self._bucket.patience:
                    self._error = AwayError(error.server, error.said, silent)
                done.wait(LONGEST_WAIT)
            except InputError as error:
                self._error = error
                return

    def _missing(self, keys: Sequence[bytes]) -> list[bytes]:
        self._fetch()
        return self._missing_here(keys)

    def _missing_here(self, keys: Sequence[bytes]) -> list[bytes]:
        found = {key for key, _ in self.find(keys)}
        return [key for key in keys if key not in found]

    def _fetch(self) -> None:
        """Loads the parts that are new; lists again where one went while it was read, for it is in another then."""
        again = True
        while again:
            again = False
            known = self._loaded | self._sender.sent
            for name, found in self._bodies([name for name in self._bucket.names(parts.FOLDER) if name not in known]):
                again = again or found.body is None
                self._load(name, found.body)

    def _bodies(self, names: list[str]) -> Iterator[tuple[str, Found]]:
        """The objects, in order, a few at a time."""
        with ThreadPoolExecutor(FETCHED) as pool:
            for start in range(0, len(names), FETCHED):
                some = names[start : start + FETCHED]
                yield from zip(some, pool.map(self._bucket.get, some), strict=True)

    def _load(self, name: str, body: bytes | None) -> None:
        if body is not None:
            try:
                self._copy.add(parts.decode(body))
            except parts.BrokenError as error:
                log.warning(
                    "%s/%s: is broken (%s); left out, its replies are asked for again; delete it",
                    self.place,
                    name,
                    error,
                )
        self._loaded.add(name)

    def _adopt(self, folder: Path) -> None:
        """Sends what processes that died here had not sent yet."""
        for path in copy.abandoned(folder):
            if not path.exists():
                continue
            left, count = Store(path, copy.MOVED_BY).rows(), 0
            while some := dict(islice(left, parts.MOST)):
                new = [(key, some[key]) for key in self._missing_here(list(some))]
                self._copy.add(new)
                for key, value in new:
                    self._sender.add(key, value)
                count += len(new)
            self._sender.send()
            log.info("%s: %d replies of an earlier start were sent from %s", self.place, count, path)

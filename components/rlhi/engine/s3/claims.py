"""Who asks for what, among workers on many machines.

A worker writes the keys that it claims to an object of its own, and then its name into the one index, in the place of
the index that it has read and of no other (a conditional write): of two that want the same key, one finds the index
changed and looks again. Before a worker leaves the index its replies are on S3, and who claims reads the index first
and then what is on S3; so a key is found with either.

A worker that dies leaves when its lease runs out, by the clock of the server; on its own host, at once. One that was
only thought dead goes on and does no harm but that some replies are asked for twice: the first value of a key stays.
"""

import json
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Sequence

from rlhi.engine.s3.bucket import NEW, Bucket, ConflictError, same
from rlhi.engine.store import START, alive
from rlhi.errors import InputError

INDEX = "claims.json"
LEASE = 120.0  # seconds: longer than the minute that a server may be away; renewed three times as often
DIGEST = 32  # bytes of a key
AGAIN = 0.2  # seconds, at most, before a look at an index that another worker has changed

Workers = dict[str, tuple[str, int, str, float]]  # host, process, its start, end of the lease


class Claims:
    """The claims on the replies of one engine."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._known: dict[str, frozenset[bytes]] = {}  # what a worker claims never changes

    def take(self, keys: Sequence[bytes], missing: Callable[[Sequence[bytes]], list[bytes]]) -> tuple[str, list[bytes]]:
        """Claims those of ``keys`` that are missing and that no living worker claims; under a new name.

        ``missing`` tells which are not on S3; it is asked after the index is read.
        """
        worker, mine, dead = uuid.uuid4().hex, list[bytes](), list[str]()

        def join(workers: Workers, now: float) -> Workers | None:
            if worker in workers:  # an earlier try succeeded, its answer got lost
                return None
            living = {name: each for name, each in workers.items() if alive(*each, now=now)}
            dead[:] = workers.keys() - living.keys()
            taken = self._taken(living)
            mine[:] = [key for key in missing(keys) if key not in taken]
            if not mine:
                return None
            self._bucket.put(_name(worker), b"".join(mine))
            return living | {worker: (socket.gethostname(), os.getpid(), START, now + LEASE)}

        self._change(join, None)
        if mine:
            self._bucket.delete([_name(each) for each in dead])
        return worker, mine

    def renew(self, worker: str, patience: float | None) -> None:
        """Puts off the end of a lease, unless it has passed and another worker has seen it."""

        def put_off(workers: Workers, now: float) -> Workers | None:
            if worker not in workers:
                return None
            host, pid, start, _ = workers[worker]
            return workers | {worker: (host, pid, start, now + LEASE)}

        self._change(put_off, patience)

    def leave(self, worker: str, patience: float | None) -> None:
        """Gives up what a worker claims."""

        def without(workers: Workers, now: float) -> Workers | None:
            del now
            return {name: each for name, each in workers.items() if name != worker} if worker in workers else None

        self._change(without, patience)
        self._bucket.delete([_name(worker)], patience)

    def _taken(self, living: Workers) -> set[bytes]:
        self._known = {name: self._known.get(name) or self._read(name) for name in living}
        return {key for keys in self._known.values() for key in keys}

    def _read(self, worker: str) -> frozenset[bytes]:
        body = self._bucket.get(_name(worker)).body or b""  # nothing where it has just left: the index has changed
        return frozenset(body[start : start + DIGEST] for start in range(0, len(body), DIGEST))

    def _change(self, change: Callable[[Workers, float], Workers | None], patience: float | None) -> None:
        """Writes what ``change`` makes of the index, or nothing where it gives nothing; again if another was first."""
        while True:
            found = self._bucket.get(INDEX, patience)
            changed = change(self._workers(found.body), found.time)
            if changed is None:
                return
            # never the same bytes twice: the server tells one index from another by what is in it
            body = json.dumps({"write": uuid.uuid4().hex, "workers": changed}).encode()
            try:
                self._bucket.put(INDEX, body, patience, same(found.tag) if found.tag else NEW)
            except ConflictError:
                time.sleep(random.uniform(0, AGAIN))
            else:
                return

    def _workers(self, body: bytes | None) -> Workers:
        if body is None:
            return {}
        try:
            return {
                str(name): (str(host), int(pid), str(start), float(until))
                for name, (host, pid, start, until) in json.loads(body)["workers"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{self._bucket.url}/{INDEX}: is broken; delete it when no stage runs") from None


def _name(worker: str) -> str:
    return f"claims/{worker}"

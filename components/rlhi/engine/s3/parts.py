"""Replies as objects on S3: parts that are never changed, each with the replies of some seconds of one worker."""

import io
import itertools
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from rlhi.engine.s3.bucket import Bucket

FOLDER = "parts/"
EVERY = 10.0  # seconds after which replies are sent, or
ROWS = 1_000  # so many of them
MOST = 10_000  # rows of a part, after a time in which nothing could be sent
MERGED = 32  # parts that become one, so that a long run leaves few to list and to fetch
FIELDS = pa.schema([pa.field("key", pa.binary(), False), pa.field("value", pa.string(), False)])

Row = tuple[bytes, str]


class BrokenError(Exception):
    """The bytes of a part that is cut off or changed."""


def encode(rows: Iterable[Row]) -> bytes:
    """A part: Parquet, with a checksum for every page."""
    keys, values = zip(*rows, strict=True)
    made = io.BytesIO()
    table = pa.Table.from_pydict({"key": keys, "value": values}, schema=FIELDS)
    pq.write_table(table, made, compression="zstd", write_page_checksum=True)
    return made.getvalue()


def decode(body: bytes) -> list[Row]:
    """The rows of a part.

    Raises:
        BrokenError: it is none, or not whole.
    """
    try:
        table = pq.read_table(pa.BufferReader(body), page_checksum_verification=True)
        if not table.schema.equals(FIELDS):
            raise BrokenError(f"holds other columns: {', '.join(table.schema.names)}")
        return list(zip(table["key"].to_pylist(), table["value"].to_pylist(), strict=True))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BrokenError(" ".join(str(error).split())) from None


class Sender:
    """Writes parts. One thread adds replies; one at a time sends them.

    ``sent`` names the parts that it wrote; ``full`` is set when enough replies wait for the next one.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.sent: set[str] = set()
        self.full = threading.Event()
        self._bucket = bucket
        self._writer = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._waiting: deque[Row] = deque()
        self._going: list[Row] = []
        self._small: dict[str, bytes] = {}

    def add(self, key: bytes, value: str) -> None:
        """Takes a reply to be sent."""
        self._waiting.append((key, value))
        if len(self._waiting) >= ROWS:
            self.full.set()

    @property
    def unsent(self) -> int:
        """Replies that are not on S3 yet."""
        return len(self._waiting) + len(self._going)

    def send(self, patience: float | None = None) -> None:
        """Sends all that waits. What could not be sent goes on waiting."""
        self.full.clear()
        while self.unsent:
            while self._waiting and len(self._going) < MOST:
                self._going.append(self._waiting.popleft())
            name, body = self._write(self._going, patience)
            self._small[name] = body
            self._going = []
        if len(self._small) >= MERGED:
            self._merge(patience)

    def _merge(self, patience: float | None) -> None:
        """Puts one part in the place of many.

        Its name comes after theirs, and they go after it is there: who lists the parts meanwhile, page by page, sees
        them or it, and who finds one gone lists again.
        """
        self._write([row for body in self._small.values() for row in decode(body)], patience)
        merged, self._small = list(self._small), {}
        self._bucket.delete(merged, patience)

    def _write(self, rows: list[Row], patience: float | None) -> tuple[str, bytes]:
        # names in the order of time, so that of two values of one key every reader takes the same
        name = f"{FOLDER}{time.time_ns() // 1_000_000:013}-{self._writer}-{next(self._numbers):06}.parquet"
        body = encode(rows)
        self._bucket.put(name, body, patience)
        self.sent.add(name)
        return name, body

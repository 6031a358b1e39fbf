"""The one pass over a source: judges each row by itself, keeps what passes on disk and what must be known in memory."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from rlhi.artifacts import Stream
from rlhi.ingest.filters import Test, first_reasons
from rlhi.ingest.frame import TIME, Frame, Talk
from rlhi.ingest.identity import Hasher
from rlhi.ingest.ledger import Ledger
from rlhi.ingest.spool import Spool
from rlhi.ingest.users import Users
from rlhi.progress import bar
from rlhi.records import Dropped, Reason, schema

# Rows that are dropped for these are named by file and row, so that they can be looked at.
BROKEN: tuple[Reason, ...] = (
    "not_a_record",
    "unknown_role",
    "null_content",
    "no_user_message",
    "repeated_role",
    "empty_message",
    "no_answer",
    "no_user_id",
    "no_timestamp",
)


@dataclass
class Scan:
    """The pass and what it has found so far."""

    users: Users
    hasher: Hasher
    spool: Spool
    stream: Stream
    tests: tuple[tuple[Reason, Test], ...]
    rows: int = 0
    columns: list[dict[str, np.ndarray]] = field(default_factory=list)

    def read(self, frames: Iterable[Frame], total: int | None) -> Ledger:
        """Takes every frame; gives what is known of the rows that passed."""
        with bar("reading", total) as shown:
            for frame in frames:
                self._take(frame)
                shown.update(len(frame))
        self.spool.close()
        names = ("id", "user", "time", "turns", "text", "toxic", "redacted")
        empty = {name: np.zeros(0, np.uint64 if name in ("id", "text") else np.int64) for name in names}
        joined = {name: np.concatenate([each[name] for each in self.columns or [empty]]) for name in names}
        flags = {name: joined[name].astype(bool) for name in ("toxic", "redacted")}
        return Ledger(**{**joined, **flags}, users=self.users.names)

    def _take(self, frame: Frame) -> None:
        self.rows += len(frame)
        reasons = first_reasons(frame, Talk.of(frame.messages), self.tests)
        ids, numbers = self.hasher.conversations(frame.identities().to_pylist())
        self._drop(frame, ids, reasons)
        passed = reasons == 0
        if passed.any():
            left = frame.filter(passed)
            users = self.users.numbers(left.user)
            self.spool.add(left, ids.filter(pa.array(passed)), pa.array([self.users.ids[each] for each in users]))
            self.columns.append({"id": numbers[passed], "user": users, **_columns(left)})

    def _drop(self, frame: Frame, ids: pa.StringArray, reasons: np.ndarray) -> None:
        known = [reason for reason, _ in self.tests]
        broken = np.array([False, *(reason in BROKEN for reason in known)])[reasons]
        named = pc.if_else(pa.array(broken), frame.places(), ids) if broken.any() else ids
        self.stream.drop(dropped_rows(named.filter(pa.array(reasons > 0)), reasons[reasons > 0], known))


def dropped_rows(ids: pa.StringArray, reasons: np.ndarray, known: Iterable[Reason]) -> pa.Table:
    """Rows of `Dropped`; a reason is 1 + a place in ``known``."""
    said = pa.array(list(known), pa.string()).take(pa.array(reasons - 1))
    return pa.Table.from_arrays([ids, said], schema=schema(Dropped))


def _columns(frame: Frame) -> dict[str, np.ndarray]:
    talk = Talk.of(frame.messages)
    least = pa.scalar(np.iinfo(np.int64).min, pa.int64())
    return {
        "time": pc.fill_null(frame.time.cast(TIME).cast(pa.int64()), least).to_numpy(),
        "turns": np.bincount(talk.row[talk.said_by("user")], minlength=len(frame)).astype(np.int32),
        "text": _text_hashes(talk),
        "toxic": pc.fill_null(frame.toxic, False).to_numpy(zero_copy_only=False),
        "redacted": pc.fill_null(frame.redacted, False).to_numpy(zero_copy_only=False),
    }


def _text_hashes(talk: Talk) -> np.ndarray:
    """A 64-bit hash of each row's messages: their bytes lie next to each other, so no text is copied."""
    offsets = np.frombuffer(talk.content.buffers()[1], np.int32)[talk.content.offset :][talk.starts].tolist()
    data = memoryview(talk.content.buffers()[2])
    spans = zip(offsets[:-1], offsets[1:], talk.lengths.tolist(), strict=True)
    return np.array([xxhash.xxh3_64_intdigest(data[a:b], seed=count) for a, b, count in spans], np.uint64)

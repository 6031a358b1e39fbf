"""Rows of a source in columns: what every format becomes before anything is judged.

Columns, and not a Python object per row, since a million conversations are judged by what a few numbers say of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlhi.ingest.mapping import RawRow
from rlhi.records import Role

ROLES: tuple[Role, ...] = get_args(Role)

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Frame:
    """``n`` rows of one file, with ``m`` messages in all. Any value may be null but in ``number``.

    ``number`` is the row's in the file, from 1, ``key`` its identity in the source; ``messages`` is a list of structs
    of role and content, empty where the row is no conversation.
    """

    file: str
    number: pa.Int64Array
    key: pa.StringArray
    user: pa.StringArray
    agent: pa.StringArray
    time: pa.TimestampArray
    model: pa.StringArray
    language: pa.StringArray
    toxic: pa.BooleanArray
    redacted: pa.BooleanArray
    messages: pa.ListArray

    def __len__(self) -> int:
        return len(self.number)

    def places(self) -> pa.StringArray:
        """Each row (n) by file and number."""
        return pa.array([f"{self.file}:{number}" for number in self.number.to_pylist()], pa.string())

    def identities(self) -> pa.StringArray:
        """What tells each row (n) from all others: its key, or where it has none its place."""
        return pc.coalesce(self.key, self.places()) if self.key.null_count else self.key

    def filter(self, mask: np.ndarray) -> "Frame":
        """The rows for which ``mask`` (n) holds."""
        if mask.all():
            return self
        chosen = pa.array(mask)
        columns = [each.name for each in fields(self) if each.name != "file"]
        return replace(self, **{name: getattr(self, name).filter(chosen) for name in columns})


@dataclass(frozen=True)
class Talk:
    """The messages of a frame laid flat: ``starts`` (n + 1) says where each row's begin, ``row`` (m) whose each is."""

    starts: np.ndarray
    row: np.ndarray
    role: pa.StringArray
    content: pa.StringArray

    @classmethod
    def of(cls, messages: pa.ListArray) -> "Talk":
        """Lays ``messages`` flat, without copying a text."""
        offsets = messages.offsets.to_numpy()
        flat = messages.values.slice(offsets[0], offsets[-1] - offsets[0])
        role, content = flat.flatten()
        starts = offsets - offsets[0]
        return cls(starts, np.repeat(np.arange(len(messages)), np.diff(starts)), role, content)

    @property
    def lengths(self) -> np.ndarray:
        """Messages of each row (n)."""
        return np.diff(self.starts)

    @cached_property
    def speaker(self) -> np.ndarray:
        """Of each message (m) the place of its role in `ROLES`, -1 for any other."""
        found: np.ndarray = pc.fill_null(pc.index_in(self.role, pa.array(ROLES)), -1).to_numpy()
        return found

    def said_by(self, role: Role) -> np.ndarray:
        """True for the messages (m) of ``role``."""
        found: np.ndarray = self.speaker == ROLES.index(role)
        return found

    def any(self, messages: np.ndarray) -> np.ndarray:
        """The rows (n) that have at least one of the marked ``messages`` (m)."""
        found: np.ndarray = np.bincount(self.row[messages], minlength=len(self.lengths)) > 0
        return found


def from_rows(file: str, rows: Sequence[tuple[int, RawRow | None]]) -> Frame:
    """Rows of ``file`` that a reader made one by one, each with its number; None is a row that is no conversation."""
    raw = [row for _, row in rows]

    def text(name: str) -> pa.StringArray:
        return pa.array([getattr(row, name) if row is not None else None for row in raw], pa.string())

    def flag(name: str) -> pa.BooleanArray:
        return pa.array([getattr(row, name) if row is not None else None for row in raw], pa.bool_())

    times = pa.array([row.timestamp if row is not None else None for row in raw], TIME)
    return Frame(
        file=file,
        number=pa.array([number for number, _ in rows], pa.int64()),
        key=text("key"),
        user=text("user"),
        agent=text("user_agent"),
        time=times,
        model=text("model"),
        language=text("language"),
        toxic=flag("toxic"),
        redacted=flag("redacted"),
        messages=_messages(raw),
    )


def _messages(rows: Sequence[RawRow | None]) -> pa.ListArray:
    said = [row.messages if row is not None else () for row in rows]
    flat = [message for own in said for message in own]
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in said], dtype=np.int32)]).astype(np.int32)
    role = pa.array([role for role, _ in flat], pa.string())
    content = pa.array([content for _, content in flat], pa.string())
    values = pa.StructArray.from_arrays([role, content], fields=list(MESSAGES.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=MESSAGES)

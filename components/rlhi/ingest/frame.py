"""Rows of a source in columns: what every format becomes before anything is judged.

Columns, and not a Python object per row, since a million conversations are judged by what a few numbers say of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa

from rlhi.ingest.mapping import RawRow

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Frame:
    """``n`` rows with ``m`` messages in all. Any value may be null but in ``place``.

    ``place`` names the row by file and number, ``key`` by its identity in the source; ``messages`` is a list of structs
    of role and content, empty where the row is no conversation.
    """

    place: pa.StringArray
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
        return len(self.place)

    def filter(self, mask: np.ndarray) -> "Frame":
        """The rows for which ``mask`` (n) holds."""
        if mask.all():
            return self
        chosen = pa.array(mask)
        return replace(self, **{each.name: getattr(self, each.name).filter(chosen) for each in fields(self)})


@dataclass(frozen=True, slots=True)
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

    def any(self, messages: np.ndarray) -> np.ndarray:
        """The rows (n) that have at least one of the marked ``messages`` (m)."""
        found: np.ndarray = np.bincount(self.row[messages], minlength=len(self.lengths)) > 0
        return found


def from_rows(rows: Sequence[tuple[str, RawRow | None]]) -> Frame:
    """Rows that a reader made one by one, each with its place; None is a row that is no conversation."""
    raw = [row for _, row in rows]

    def text(name: str) -> pa.StringArray:
        return pa.array([getattr(row, name) if row is not None else None for row in raw], pa.string())

    def flag(name: str) -> pa.BooleanArray:
        return pa.array([getattr(row, name) if row is not None else None for row in raw], pa.bool_())

    times = pa.array([row.timestamp if row is not None else None for row in raw], TIME)
    return Frame(
        place=pa.array([place for place, _ in rows], pa.string()),
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

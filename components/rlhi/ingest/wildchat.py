"""Reads WildChat-1M and WildChat-4.8M from Parquet into frames, column by column.

Only the columns that are needed are read, never the moderation structs. ``conversation_hash`` is not unique in the
published data: the identity of a row is the hash with the identifier of the first turn.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlhi.errors import InputError
from rlhi.ingest.frame import MESSAGES, TIME, Frame
from rlhi.ingest.mapping import to_time

ROWS = 1000  # read at a time: some megabytes of text, which the processor's cache can hold
NEEDED = ("conversation", "hashed_ip")
OPTIONAL = ("conversation_hash", "model", "timestamp", "language", "toxic", "redacted")
AGENT = "header.user-agent"
OF_A_TURN = ("role", "content", "hashed_ip", "turn_identifier")


def read_frames(parquet: pq.ParquetFile, name: str, *, with_agent: bool) -> Iterator[Callable[[], Frame]]:
    """The rows of one file, in order, decoded; ``name`` is the file's, for the places of rows. A call makes the frame.

    Raises:
        InputError: a column that is needed is missing or of another type.
    """
    start = 0
    wanted = columns(parquet, name, with_agent=with_agent)
    for batch in parquet.iter_batches(batch_size=ROWS, columns=wanted, use_threads=False):
        yield partial(to_frame, batch, name, start)
        start += len(batch)


def to_frame(batch: pa.RecordBatch, name: str, start: int) -> Frame:
    """One batch of rows, the first of which is row ``start`` of the file ``name`` (counted from 0)."""
    talks = batch["conversation"]
    offsets = talks.offsets.to_numpy()
    turns = talks.values.slice(offsets[0], offsets[-1] - offsets[0])
    offsets = offsets - offsets[0]
    return Frame(
        file=name,
        number=pa.array(np.arange(start + 1, start + len(batch) + 1)),
        key=_keys(batch, turns, offsets),
        user=_users(batch, turns, offsets),
        agent=_sound(pc.struct_field(batch["header"], "user-agent"))
        if "header" in batch.schema.names
        else _none(batch),
        time=_times(batch),
        model=_texts(batch, "model"),
        language=_texts(batch, "language"),
        toxic=_flags(batch, "toxic"),
        redacted=_flags(batch, "redacted"),
        messages=_messages(turns, offsets),
    )


def columns(parquet: pq.ParquetFile, name: str, *, with_agent: bool) -> list[str]:
    """The leaves that are needed, so that headers and moderation stay on disk."""
    has = parquet.schema_arrow.names
    missing = [column for column in NEEDED if column not in has]
    if missing:
        raise InputError(f"{name}: has no column {missing[0]!r}; its columns are {', '.join(has)}")
    wanted = {column for column in (NEEDED[1], *OPTIONAL) if column in has} | _turn_columns(parquet, name)
    if with_agent:
        wanted |= {AGENT}
    paths = [parquet.schema.column(i).path for i in range(len(parquet.schema))]
    return [path for path in paths if path in wanted]


def _turn_columns(parquet: pq.ParquetFile, name: str) -> set[str]:
    turn = parquet.schema_arrow.field("conversation").type
    if not pa.types.is_list(turn) or not pa.types.is_struct(turn.value_type):
        raise InputError(f"{name}: column 'conversation' is {turn}, expected a list of messages")
    has = {field.name: field.type for field in turn.value_type}
    for column in ("role", "content"):
        if column not in has:
            raise InputError(f"{name}: the messages of 'conversation' have no field {column!r}; they have {list(has)}")
        if not pa.types.is_string(has[column]):
            raise InputError(f"{name}: field {column!r} of 'conversation' is {has[column]}, expected text")
    paths = (parquet.schema.column(i).path for i in range(len(parquet.schema)))
    # conversation.list.element.role: of the messages' own fields, not of structs within them
    return {path for path in paths if path.count(".") == 3 and path.split(".")[0] == "conversation" and _leaf(path)}


def _leaf(path: str) -> bool:
    return path.split(".")[-1] in OF_A_TURN


def _keys(batch: pa.RecordBatch, turns: pa.StructArray, offsets: np.ndarray) -> pa.StringArray:
    """Hash and first turn's identifier as far as the row has them; null where it has neither."""
    parts = [_texts(batch, "conversation_hash")]
    if "turn_identifier" in _fields(turns):
        parts.append(_of_first(turns, "turn_identifier", offsets).cast(pa.string()))
    joined = pc.utf8_trim(pc.binary_join_element_wise(*(pc.fill_null(part, "") for part in parts), " "), " ")
    return pc.if_else(pc.equal(joined, ""), None, joined)


def _users(batch: pa.RecordBatch, turns: pa.StructArray, offsets: np.ndarray) -> pa.StringArray:
    """The row's user, else the first that one of its turns names."""
    user = _texts(batch, "hashed_ip")
    if user.null_count == 0 or "hashed_ip" not in _fields(turns):
        return user
    named = _sound(pc.struct_field(turns, "hashed_ip").cast(pa.string()))
    valid = np.flatnonzero(named.is_valid().to_numpy(zero_copy_only=False))
    first = np.searchsorted(valid, offsets[:-1])
    found = np.append(valid, -1)[first]
    inside = (first < len(valid)) & (found < offsets[1:])
    return pc.coalesce(user, named.take(pa.array(found, mask=~inside)))


def _of_first(turns: pa.StructArray, field: str, offsets: np.ndarray) -> pa.Array:
    """``field`` of the first message of each row; null where there is no message."""
    empty = offsets[:-1] == offsets[1:]
    return pc.struct_field(turns, field).take(pa.array(offsets[:-1], mask=empty))


def _times(batch: pa.RecordBatch) -> pa.TimestampArray:
    """In UTC; WildChat-4.8M's have no zone and mean it."""
    if "timestamp" not in batch.schema.names:
        return pa.nulls(len(batch), TIME)
    when = batch["timestamp"]
    if pa.types.is_timestamp(when.type):
        return when.cast(pa.timestamp("us", tz=when.type.tz), safe=False).cast(TIME)
    return pa.array([to_time(value) for value in when.to_pylist()], TIME)


def _messages(turns: pa.StructArray, offsets: np.ndarray) -> pa.ListArray:
    parts = [_sound(pc.struct_field(turns, name)) for name in ("role", "content")]
    values = pa.StructArray.from_arrays(parts, fields=list(MESSAGES.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=MESSAGES)


def _texts(batch: pa.RecordBatch, name: str) -> pa.StringArray:
    return _sound(batch[name].cast(pa.string())) if name in batch.schema.names else _none(batch)


def _sound(texts: pa.StringArray) -> pa.StringArray:
    """The same texts; what is no UTF-8, which Parquet does not rule out, is replaced."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        raw = texts.cast(pa.binary()).to_pylist()
        return pa.array([each if each is None else each.decode(errors="replace") for each in raw], pa.string())
    return texts


def _flags(batch: pa.RecordBatch, name: str) -> pa.BooleanArray:
    known = name in batch.schema.names and pa.types.is_boolean(batch.schema.field(name).type)
    return batch[name] if known else pa.nulls(len(batch), pa.bool_())


def _none(batch: pa.RecordBatch) -> pa.StringArray:
    return pa.nulls(len(batch), pa.string())


def _fields(turns: pa.StructArray) -> list[str]:
    return [field.name for field in turns.type]

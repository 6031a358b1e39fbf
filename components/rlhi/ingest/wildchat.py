"""Reads WildChat's schema, from Parquet or JSONL, into conversations, and names what is broken.

Only the columns that are needed are read, never the moderation structs. The id is that of the first turn, since
``conversation_hash`` is not unique in the published data.
"""

import datetime
import gzip
import io
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlhi.config import digest
from rlhi.errors import InputError
from rlhi.progress import track
from rlhi.records import Conversation, Dropped, Message, Reason
from rlhi.sources import SourceFile, list_files

NEEDED = ("conversation", "hashed_ip")
OPTIONAL = ("conversation_hash", "model", "timestamp", "language")
ROLES = ("system", "user", "assistant")
LFS = b"version https://git-lfs"


def read_rows(source: str) -> tuple[list[Conversation], list[Dropped]]:
    """Every row of every file, as a conversation or as a dropped row with its reason. All are ``train`` until split.

    Raises:
        InputError: nothing to read, a file of another format, or one that lacks a needed column.
    """
    kept: list[Conversation] = []
    broken: list[Dropped] = []
    for file in list_files(source):
        for number, row in enumerate(track(_rows(file), f"reading {file.name}")):
            parsed = to_conversation(row, f"{file.name}:{number + 1}")
            if isinstance(parsed, Conversation):
                kept.append(parsed)
            else:
                broken.append(parsed)
    return kept, broken


def to_conversation(row: object, place: str) -> Conversation | Dropped:
    """One row, or why it is none. ``place`` (file and row) names rows that have no id of their own."""
    if not isinstance(row, Mapping):
        return Dropped(place, "not_a_record")
    turns = row.get("conversation")
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns) or not turns:
        return Dropped(place, "not_a_record")
    reason = _broken(turns)
    if reason is not None:
        return Dropped(place, reason)
    user = row.get("hashed_ip") or next((turn.get("hashed_ip") for turn in turns if turn.get("hashed_ip")), None)
    if not user:
        return Dropped(place, "no_user_id")
    when = _time(row.get("timestamp"))
    if when is None:
        return Dropped(place, "not_a_record")
    return Conversation(
        id=_identify(row, turns, place),
        user_id=str(user),
        timestamp=when,
        model=_text(row.get("model")),
        language=_text(row.get("language")),
        split="train",
        messages=tuple(Message(turn["role"], turn["content"]) for turn in turns),
    )


def _broken(turns: list[Any]) -> Reason | None:
    """The first thing that is wrong with a conversation's messages."""
    if any(turn.get("role") not in ROLES for turn in turns):
        return "unknown_role"
    if any(not isinstance(turn.get("content"), str) for turn in turns):
        return "null_content"
    spoken = [turn["role"] for turn in turns if turn["role"] != "system"]
    if "user" not in spoken:
        return "no_user_message"
    if spoken[0] != "user" or any(one == other for one, other in itertools.pairwise(spoken)):
        return "repeated_role"
    if any(not turn["content"].strip() for turn in turns):
        return "empty_message"
    return "no_answer" if "assistant" not in spoken else None


def _identify(row: Mapping[str, Any], turns: list[Any], place: str) -> str:
    turn, conversation = turns[0].get("turn_identifier"), row.get("conversation_hash")
    return digest(f"{conversation} {turn}") if turn is not None or conversation else digest(place)


def _time(value: object) -> datetime.datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime.datetime):
        return None
    try:
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)
    except OverflowError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _rows(file: SourceFile) -> Iterator[object]:
    try:
        yield from _parquet(file) if file.path.endswith(".parquet") else _jsonl(file)
    except (pa.ArrowInvalid, gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file.path}: cannot be read as {_kind(file)}: {reason}") from None


def _kind(file: SourceFile) -> str:
    return "Parquet" if file.path.endswith(".parquet") else "JSONL"


def _parquet(file: SourceFile) -> Iterator[object]:
    with file.filesystem.open_input_file(file.path) as opened:
        _refuse_pointer(opened.read(len(LFS)), file)
        opened.seek(0)
        parquet = pq.ParquetFile(opened)
        names = parquet.schema_arrow.names
        missing = [name for name in NEEDED if name not in names]
        if missing:
            raise InputError(f"{file.path}: has no column {missing[0]!r}; its columns are {', '.join(names)}")
        columns = [*NEEDED[1:], *(name for name in OPTIONAL if name in names), *_turn_columns(parquet, file)]
        for batch in parquet.iter_batches(batch_size=512, columns=columns):
            yield from batch.to_pylist()


def _turn_columns(parquet: pq.ParquetFile, file: SourceFile) -> list[str]:
    """The leaves of the conversation that are needed, so that headers and moderation stay on disk."""
    turn = parquet.schema_arrow.field("conversation").type
    if not pa.types.is_list(turn) or not pa.types.is_struct(turn.value_type):
        raise InputError(f"{file.path}: column 'conversation' is {turn}, expected a list of messages")
    has = [turn.value_type.field(i).name for i in range(turn.value_type.num_fields)]
    for name in ("role", "content"):
        if name not in has:
            raise InputError(f"{file.path}: the messages of 'conversation' have no field {name!r}; they have {has}")
    wanted = {name for name in ("role", "content", "hashed_ip", "turn_identifier") if name in has}
    paths = (parquet.schema.column(i).path for i in range(len(parquet.schema)))
    return [path for path in paths if path.startswith("conversation.") and path.split(".")[-1] in wanted]


def _jsonl(file: SourceFile) -> Iterator[object]:
    with file.filesystem.open_input_stream(file.path, compression=None) as raw:
        data: Any = gzip.GzipFile(fileobj=raw) if file.path.endswith(".gz") else raw
        seen = False
        for number, line in enumerate(io.BufferedReader(data) if not isinstance(data, gzip.GzipFile) else data):
            if number == 0:
                _refuse_pointer(line, file)
            if line.strip():
                row = _parse(line)
                if not seen and isinstance(row, Mapping):
                    _check_fields(row, file)
                    seen = True
                yield row
        if not seen:
            raise InputError(f"{file.path}: holds no JSON object on any line; expected one conversation per line")


def _parse(line: bytes) -> object:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if b"\\ud" in line.lower():  # half of a character that was cut in two cannot be written again
        row = json.loads(json.dumps(row, ensure_ascii=False).encode(errors="replace"))
    return row


def _check_fields(row: Mapping[str, Any], file: SourceFile) -> None:
    for name in NEEDED:
        if name not in row:
            raise InputError(f"{file.path}: row 1 has no field {name!r}; its fields are {', '.join(map(str, row))}")


def _refuse_pointer(start: bytes, file: SourceFile) -> None:
    if start.startswith(LFS):
        raise InputError(f"{file.path}: is a Git LFS pointer, not the data; run 'git lfs pull' where it was cloned")

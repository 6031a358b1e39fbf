"""From a source of any kind to its rows, in order and never more than some thousand in memory.

WildChat in Parquet is read by columns, everything else row by row through a mapping.
"""

import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rlhi.errors import InputError
from rlhi.ingest import wildchat
from rlhi.ingest.frame import Frame, from_rows
from rlhi.ingest.kinds import Kind, detect, fields_in, fields_of
from rlhi.ingest.mapping import WILDCHAT, Mapping, RawRow, check, parse
from rlhi.sources import SourceFile, list_files

LFS = b"version https://git-lfs"
ROWS = 1000
READ_BYTES = 4 << 20
WAITING = 2  # batches that are read ahead
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """Files of one kind. ``rows`` is how many they hold, null where only reading tells."""

    files: list[SourceFile]
    kind: Kind
    rows: int | None


def open_source(uri: str, kind: Kind | None, mapping: Mapping) -> Source:
    """Finds the files and their kind, from the first row or the schema of each.

    Raises:
        InputError: nothing to read, an unreadable file, a kind that is not clear, or several kinds.
    """
    files = list_files(uri)
    kinds, rows = {}, []
    for file in files:
        with _explained(file):
            kinds[file.path], count = _look(file, kind, mapping)
            rows.append(count)
    found = set(kinds.values())
    if len(found) > 1:
        shown = "; ".join(f"{next(path for path in kinds if kinds[path] == each)} is {each}" for each in sorted(found))
        raise InputError(f"{uri}: holds several kinds of data ({shown}); read one kind at a time")
    return Source(files, found.pop(), None if None in rows else sum(filter(None, rows)))


def read_frames(source: Source, mapping: Mapping, *, with_agent: bool) -> Iterator[Frame]:
    """The rows of conversation logs, file by file; the next are read while the last are worked on."""
    own = WILDCHAT if source.kind == "wildchat" else mapping

    def of_file(file: SourceFile) -> Iterator[Frame]:
        with _explained(file):
            if source.kind == "wildchat" and _is_parquet(file):
                with open_parquet(file) as parquet:
                    yield from wildchat.read_frames(parquet, file.name, with_agent=with_agent)
            else:
                yield from _mapped(file, own)

    return ahead(frame for file in source.files for frame in of_file(file))


def read_objects(source: Source) -> Iterator[tuple[str, object]]:
    """The rows of other data, as they are, each with its place (file and row)."""
    for file in source.files:
        with _explained(file):
            yield from _numbered(file)


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, made in another thread while the caller works on earlier ones."""
    end, made = object(), iter(items)
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, made, end) for _ in range(WAITING))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, made, end))
            yield item  # type: ignore[misc]


@contextmanager
def open_parquet(file: SourceFile) -> Iterator[pq.ParquetFile]:
    """The file, refused where it is a pointer to one."""
    with file.filesystem.open_input_file(file.path) as opened:
        _refuse_pointer(opened.read(len(LFS)), file)
        opened.seek(0)
        yield pq.ParquetFile(opened, buffer_size=READ_BYTES, pre_buffer=False)  # else it holds the file in memory


def _look(file: SourceFile, kind: Kind | None, mapping: Mapping) -> tuple[Kind, int | None]:
    """The kind of a file, and its number of rows where that costs nothing."""
    if _is_parquet(file):
        with open_parquet(file) as parquet:
            found = kind or detect(fields_of(parquet.schema_arrow), file.path, mapping)
            return found, parquet.metadata.num_rows
    place, row = next(((place, row) for place, row in _numbered(file) if isinstance(row, dict)), ("", None))
    if row is None:
        raise InputError(f"{file.path}: holds no JSON object on any line; expected one conversation per line")
    found = kind or detect(fields_in(row), file.path, mapping)
    if found in ("wildchat", "chat-log"):
        number = place.rpartition(":")[2]
        check(row, WILDCHAT if found == "wildchat" else mapping, f"{file.path}: row {number}")
    return found, None


def _mapped(file: SourceFile, mapping: Mapping) -> Iterator[Frame]:
    rows = ((place, parse(row, mapping)) for place, row in _numbered(file))
    read = ((place, row if isinstance(row, RawRow) else None) for place, row in rows)
    while chunk := list(islice(read, ROWS)):
        yield from_rows(chunk)


def _numbered(file: SourceFile) -> Iterator[tuple[str, object]]:
    rows = _parquet_rows(file) if _is_parquet(file) else _json_rows(file)
    return ((f"{file.name}:{number}", row) for number, row in rows)


def _parquet_rows(file: SourceFile) -> Iterator[tuple[int, object]]:
    with open_parquet(file) as parquet:
        rows = (row for batch in parquet.iter_batches(batch_size=ROWS) for row in batch.to_pylist())
        yield from enumerate(rows, start=1)


def _json_rows(file: SourceFile) -> Iterator[tuple[int, object]]:
    """One JSON value a line, blank lines are none; of a ``.json`` that is one value over many lines, the items."""
    with file.filesystem.open_input_stream(file.path, compression=None) as raw:
        buffered: Any = io.BufferedReader(raw)
        lines = gzip.GzipFile(fileobj=buffered) if file.path.endswith(".gz") else buffered
        first = lines.readline()
        _refuse_pointer(first, file)
        if file.path.endswith(".json") and _load(first) is None:
            whole = _load(first + lines.read())
            yield from enumerate(whole if isinstance(whole, list) else [whole], start=1)
        else:
            numbered = enumerate((line for part in ([first], lines) for line in part), start=1)
            yield from ((number, _load(line)) for number, line in numbered if line.strip())


def _load(text: bytes) -> object:
    """The JSON value, or null where there is none; text that is no Unicode is read with replacements."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def _is_parquet(file: SourceFile) -> bool:
    return file.path.endswith(".parquet")


@contextmanager
def _explained(file: SourceFile) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        kind = "Parquet" if _is_parquet(file) else "JSONL"
        raise InputError(f"{file.path}: cannot be read as {kind}: {str(error).splitlines()[0]}") from None


def _refuse_pointer(start: bytes, file: SourceFile) -> None:
    if start.startswith(LFS):
        raise InputError(f"{file.path}: is a Git LFS pointer, not the data; run 'git lfs pull' where it was cloned")

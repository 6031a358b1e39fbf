"""The rows of a data file as Python values, one after the other: Parquet, JSONL (also gzipped), or one JSON value."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rlhi.errors import InputError
from rlhi.sources import SourceFile

LFS = b"version https://git-lfs"
READ_BYTES = 4 << 20
ROWS = 1000


def rows_of(file: SourceFile, columns: Sequence[str] = ()) -> Iterator[tuple[int, object]]:
    """Each row with its number, from 1; of Parquet only those of ``columns`` that it has, or all where it has none.

    A line that holds no JSON is null; blank lines are no rows, but are counted.

    Raises:
        InputError: the file cannot be read, or is only a pointer to one.
    """
    with explained(file):
        yield from _parquet_rows(file, columns) if is_parquet(file) else _json_rows(file)


def is_parquet(file: SourceFile) -> bool:
    """Whether a file is Parquet, by its name."""
    return file.path.endswith(".parquet")


@contextmanager
def open_parquet(file: SourceFile) -> Iterator[pq.ParquetFile]:
    """The file, refused where it is a pointer to one."""
    with file.filesystem.open_input_file(file.path) as opened:
        _refuse_pointer(opened.read(len(LFS)), file)
        opened.seek(0)
        yield pq.ParquetFile(opened, buffer_size=READ_BYTES, pre_buffer=False)  # else it holds the file in memory


@contextmanager
def explained(file: SourceFile) -> Iterator[None]:
    """What a damaged file raises, as one line that names it."""
    try:
        yield
    except (pa.ArrowException, EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        kind = "Parquet" if is_parquet(file) else "JSONL"
        raise InputError(f"{file.path}: cannot be read as {kind}: {str(error).splitlines()[0]}") from None


def _parquet_rows(file: SourceFile, columns: Sequence[str]) -> Iterator[tuple[int, object]]:
    with open_parquet(file) as parquet:
        wanted = [name for name in parquet.schema_arrow.names if name in columns] or None
        batches = parquet.iter_batches(batch_size=ROWS, columns=wanted)
        rows = (row for batch in batches for row in batch.to_pylist())
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


def _refuse_pointer(start: bytes, file: SourceFile) -> None:
    if start.startswith(LFS):
        raise InputError(f"{file.path}: is a Git LFS pointer, not the data; run 'git lfs pull' where it was cloned")

"""From a source of any kind to its rows, in order and never more than some thousand in memory.

WildChat in Parquet is read by columns, everything else row by row through a mapping.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

from rlhi import watermark
from rlhi.errors import InputError
from rlhi.ingest import wildchat
from rlhi.ingest.frame import Frame, from_rows
from rlhi.ingest.kinds import Kind, detect, fields_in, fields_of
from rlhi.ingest.mapping import WILDCHAT, Mapping, RawRow, check, parse
from rlhi.rows import explained, is_parquet, open_parquet, rows_of
from rlhi.sources import SourceFile, list_files

ROWS = 1000
WAITING = 2  # batches that are read ahead
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """Files of one kind. ``rows`` is how many they hold, null where only reading tells."""

    files: list[SourceFile]
    kind: Kind
    rows: int | None


def open_source(uri: str, kind: Kind | None, mapping: Mapping) -> Source:
    """Finds the files and their kind, from the first row or the schema of each. A recurring run takes the new ones.

    Raises:
        InputError: nothing to read, an unreadable file, a kind that is not clear, or several kinds.
    """
    files = watermark.take(uri, list_files(uri))
    kinds, rows = {}, []
    for file in files:
        with explained(file):
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

    def of_file(file: SourceFile) -> Iterator[Callable[[], Frame]]:
        with explained(file):
            if source.kind == "wildchat" and is_parquet(file):
                with open_parquet(file) as parquet:
                    yield from wildchat.read_frames(parquet, file.name, with_agent=with_agent)
            else:
                yield from _mapped(file, own)

    # the thread that reads ahead only decodes: putting a frame together is the caller's share
    return (finish() for finish in ahead(frame for file in source.files for frame in of_file(file)))


def read_objects(source: Source) -> Iterator[tuple[str, object]]:
    """The rows of other data, as they are, each with its place (file and row)."""
    for file in source.files:
        for number, row in rows_of(file):
            yield f"{file.name}:{number}", row


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, made in another thread while the caller works on earlier ones."""
    end, made = object(), iter(items)
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, made, end) for _ in range(WAITING))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, made, end))
            yield item  # type: ignore[misc]


def _look(file: SourceFile, kind: Kind | None, mapping: Mapping) -> tuple[Kind, int | None]:
    """The kind of a file, and its number of rows where that costs nothing."""
    if is_parquet(file):
        with open_parquet(file) as parquet:
            found = kind or detect(fields_of(parquet.schema_arrow), file.path, mapping)
            return found, parquet.metadata.num_rows
    number, row = next(((number, row) for number, row in rows_of(file) if isinstance(row, dict)), (0, None))
    if row is None:
        raise InputError(f"{file.path}: holds no JSON object on any line; expected one conversation per line")
    found = kind or detect(fields_in(row), file.path, mapping)
    if found in ("wildchat", "chat-log"):
        check(row, WILDCHAT if found == "wildchat" else mapping, f"{file.path}: row {number}")
    return found, None


def _mapped(file: SourceFile, mapping: Mapping) -> Iterator[Callable[[], Frame]]:
    rows = ((number, parse(row, mapping)) for number, row in rows_of(file))
    read = ((number, row if isinstance(row, RawRow) else None) for number, row in rows)
    while chunk := list(islice(read, ROWS)):
        yield partial(from_rows, file.name, chunk)

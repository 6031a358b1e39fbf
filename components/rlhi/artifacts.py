"""What a stage reads and writes: folders of Parquet parts, complete or absent.

Beside the rows lie ``dropped/``, the rows that left, and ``users.parquet``, the users whose rows these are: so any
output can answer whether it holds a given user.
"""

import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rlhi import manifest
from rlhi.errors import InputError
from rlhi.manifest import Manifest
from rlhi.records import Dropped, from_table, schema, to_table

R = TypeVar("R")
PART = "part-00000.parquet"  # the first, and mostly the only one
PART_BYTES = 256 << 20  # of rows in memory; a larger output becomes several parts
GROUP_BYTES = 8 << 20
USERS = "users.parquet"
USERS_SCHEMA = pa.schema([pa.field("user_id", pa.string(), False), pa.field("rows", pa.int64(), False)])


class Input(Generic[R]):
    """The complete output of an earlier stage."""

    def __init__(self, path: Path, record: type[R]) -> None:
        self.path = path
        self.record = record

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest; refuses an output that holds other records than the stage reads."""
        found = manifest.load(self.path)
        if found.record != self.record.__name__:
            raise InputError(
                f"{self.path}: holds {found.record} rows of stage {found.stage}, not {self.record.__name__}"
            )
        return found

    def read(self) -> list[R]:
        """All rows, in order."""
        return from_table(self.record, _read_parts(self.path, self.record))

    def read_dropped(self) -> list[Dropped]:
        """The rows that the stage dropped."""
        return from_table(Dropped, _read_parts(self.path / "dropped", Dropped))


class Output(Generic[R]):
    """A folder in the making. Nothing is at ``path`` until `commit`; then everything is."""

    def __init__(self, path: Path, record: type[R]) -> None:
        self.path = path
        self.record = record
        self.rows_in = 0
        self.kept = 0
        self.dropped: dict[str, int] = {}
        self.users = 0
        self._also: frozenset[str] = frozenset()
        self.metrics: dict[str, float] = {}
        self.notes: dict[str, str] = {}
        self._partial = path.with_name(f".{path.name}.partial")

    def __enter__(self) -> "Output[R]":
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def holds(self, users: Iterable[str]) -> None:
        """Says before rows are written that the output holds something of ``users``, be it in other files than rows."""
        self._also |= frozenset(users)

    def write(self, kept: Sequence[R], dropped: Sequence[Dropped], rows_in: int, count: int | None = None) -> None:
        """Writes the rows that stay and those that leave. ``count`` is what was kept, where one row in makes several.

        Raises:
            RuntimeError: rows were lost on the way (``rows_in != kept + dropped``), a defect of the stage.
        """
        count = len(kept) if count is None else count
        with self.stream() as stream:
            stream.keep(to_table(self.record, kept))
            stream.drop(to_table(Dropped, dropped))
            stream.count(rows_in, count)

    @contextmanager
    def stream(self) -> Iterator["Stream"]:
        """Takes the rows table by table, for a stage that holds only a few of them at a time."""
        stream = Stream(self._partial, schema(self.record), self._also)
        try:
            yield stream
        finally:
            stream.close()
        self.rows_in, self.kept = stream.rows_in, stream.kept
        self.dropped = dict(stream.reasons.most_common())
        self.users = len(stream.users)

    def measure(self, metrics: Mapping[str, float]) -> None:
        """Figures for the manifest, MLflow and KFP."""
        self.metrics.update(metrics)

    def note(self, name: str, text: str) -> None:
        """A sentence that belongs to the output, for instance what its figures mean."""
        self.notes[name] = text

    def file(self, name: str) -> Path:
        """Where to put a further file or folder of the output; ``name`` is relative."""
        path = self._partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def commit(self, described: Manifest) -> None:
        """Writes the manifest and moves the folder to its place."""
        described.save(self._partial)
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()
        self._partial.rename(self.path)

    @property
    def partial(self) -> Path:
        """The folder while it is being made."""
        return self._partial


class Stream:
    """Writes an output piece by piece, in order."""

    def __init__(self, folder: Path, fields: pa.Schema, users: Iterable[str]) -> None:
        self.rows_in = 0
        self.kept = 0
        self.reasons: Counter[str] = Counter()
        self.users: Counter[str] = Counter(dict.fromkeys(users, 0))
        self._folder = folder
        self._rows = _Parts(folder, fields)
        self._dropped = _Parts(folder / "dropped", schema(Dropped))

    def keep(self, rows: pa.Table) -> None:
        """Rows that stay."""
        self._rows.write(rows)
        self.kept += rows.num_rows
        if "user_id" not in rows.schema.names:  # nobody's: what a benchmark asks
            return
        for found in rows["user_id"].value_counts().to_pylist():
            self.users[found["values"]] += found["counts"]

    def drop(self, rows: pa.Table) -> None:
        """Rows of `Dropped` that leave."""
        self._dropped.write(rows)
        for found in rows["reason"].value_counts().to_pylist():
            self.reasons[found["values"]] += found["counts"]

    def count(self, rows_in: int, kept: int | None = None) -> None:
        """Says how many rows came in, and how many of them were kept where one row in makes several.

        Raises:
            RuntimeError: rows were lost on the way (``rows_in != kept + dropped``), a defect of the stage.
        """
        self.rows_in, self.kept = rows_in, self.kept if kept is None else kept
        if rows_in != self.kept + self.reasons.total():
            raise RuntimeError(f"{rows_in} rows in, but {self.kept} kept and {self.reasons.total()} dropped")

    def close(self) -> None:
        """Ends the files and lists the users."""
        self._rows.close()
        self._dropped.close()
        list_users(self._folder, self.users)


class _Parts:
    """Numbered Parquet files of one folder; there is always one, be it without rows."""

    def __init__(self, folder: Path, fields: pa.Schema) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._fields = fields
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._number = 0
        self._bytes = 0
        self._writer = self._open()

    def write(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        self._waiting_bytes += rows.nbytes
        if self._waiting_bytes > GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        """Writes what waits as one row group."""
        rows = pa.concat_tables([self._fields.empty_table(), *self._waiting])
        self._waiting, self._waiting_bytes = [], 0
        if self._bytes > PART_BYTES:
            self._writer.close()
            self._number, self._bytes = self._number + 1, 0
            self._writer = self._open()
        self._writer.write_table(rows)
        self._bytes += rows.nbytes

    def _open(self) -> pq.ParquetWriter:
        name = PART.replace("00000", f"{self._number:05d}")
        return pq.ParquetWriter(self._folder / name, self._fields, compression="zstd")


def list_users(folder: Path, rows: Mapping[str, int]) -> None:
    """Writes down how many rows of each user an output holds."""
    listed = sorted(rows.items())
    columns = {"user_id": [user for user, _ in listed], "rows": [count for _, count in listed]}
    pq.write_table(pa.Table.from_pydict(columns, schema=USERS_SCHEMA), folder / USERS, compression="zstd")


def user_rows(folder: Path) -> dict[str, int]:
    """How many rows of each user a complete output holds; 0 for users of whom it holds other things.

    Raises:
        InputError: no complete output, or its list of users is missing.
    """
    manifest.load(folder)
    try:
        listed = pq.read_table(folder / USERS)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{folder / USERS}: cannot be read ({error}); run its stage again") from None
    return dict(zip(listed["user_id"].to_pylist(), listed["rows"].to_pylist(), strict=True))


def link_tree(source: Path, target: Path, only: Collection[str] | None = None) -> None:
    """A copy of a complete output, or of ``only`` these in it, by hard links where the file system can. All or nothing.

    Raises:
        OSError: ``target`` exists, or cannot be written.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _link_all(source, partial, only)
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _link_all(source: Path, target: Path, only: Collection[str] | None) -> None:
    """As `shutil.copytree`, which does not tell a full disk from another error."""
    target.mkdir(parents=True)
    for found in sorted(source.rglob("*")):  # a folder before what is in it
        inside = found.relative_to(source)
        place = target / inside
        if only is not None and inside.parts[0] not in only:
            continue
        if found.is_dir():
            place.mkdir()
        else:
            _link_or_copy(found, place)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _read_parts(folder: Path, record: type[Any]) -> pa.Table:
    expected = schema(record)
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise InputError(f"{folder}: holds no part-*.parquet; run the stage that makes it again")
    for part in parts:
        try:
            found = pq.read_schema(part)
        except pa.ArrowInvalid as error:
            raise InputError(f"{part}: cannot be read as Parquet ({error}); run its stage again") from None
        if not found.equals(expected):
            raise InputError(f"{part}: is not {record.__name__}; expected {_fields(expected)}; found {_fields(found)}")
    return pa.concat_tables([pq.read_table(part) for part in parts])


def _fields(found: pa.Schema) -> str:
    return ", ".join(str(field) for field in found)

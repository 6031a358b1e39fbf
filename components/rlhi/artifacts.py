"""What a stage reads and writes: folders of Parquet parts, complete or absent."""

import os
import shutil
from collections.abc import Mapping, Sequence
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
PART = "part-00000.parquet"


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
        self.metrics: dict[str, float] = {}
        self.notes: dict[str, str] = {}
        self._partial = path.with_name(f".{path.name}.partial")

    def __enter__(self) -> "Output[R]":
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def write(self, kept: Sequence[R], dropped: Sequence[Dropped], rows_in: int, count: int | None = None) -> None:
        """Writes the rows that stay and those that leave. ``count`` is what was kept, where one row in makes several.

        Raises:
            RuntimeError: rows were lost on the way (``rows_in != kept + dropped``), a defect of the stage.
        """
        count = len(kept) if count is None else count
        if rows_in != count + len(dropped):
            raise RuntimeError(f"{rows_in} rows in, but {count} kept and {len(dropped)} dropped")
        _write_part(self._partial, self.record, kept)
        _write_part(self._partial / "dropped", Dropped, dropped)
        self.rows_in, self.kept, self.dropped = rows_in, count, manifest.count_reasons(dropped)

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


def link_tree(source: Path, target: Path) -> None:
    """A copy of a complete output, by hard links where the file system can. All or nothing.

    Raises:
        OSError: ``target`` exists.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=_link_or_copy)
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    partial.rename(target)


def _link_or_copy(source: str, target: str) -> Any:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write_part(folder: Path, record: type[Any], rows: Sequence[Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table(record, rows), folder / PART, compression="zstd")


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

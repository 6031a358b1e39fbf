"""Where raw data lies: a file, a folder or a glob, local or s3://."""

import glob
import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pyarrow import fs

from rlhi.config import digest
from rlhi.errors import InputError

ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".json")


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, and the file system that opens it."""

    filesystem: fs.FileSystem
    path: str
    size: int

    @property
    def name(self) -> str:
        """The last part of the path, the same on every machine."""
        return PurePosixPath(self.path).name


def list_files(source: str) -> list[SourceFile]:
    """The data files of ``source``, sorted by path.

    Raises:
        InputError: nothing is there, or nothing that could be read.
    """
    files = _expand(source)
    readable = [file for file in files if file.path.endswith(ENDINGS)]
    if not files:
        raise InputError(f"{source}: no such file or folder, or an empty one")
    if not readable:
        raise InputError(
            f"{source}: no {', '.join(ENDINGS)} among its {len(files)} files, the first is {files[0].path}"
        )
    empty = [file.path for file in readable if file.size == 0]
    if empty:
        raise InputError(f"{empty[0]}: is empty (0 bytes); remove it or fetch it again")
    return readable


def uris(sources: str) -> list[str]:
    """The URIs of a list with commas between them; a local path that exists is one, commas and all."""
    if sources and Path(sources).exists():
        return [sources]
    return [uri.strip() for uri in sources.split(",") if uri.strip()]


def source_digest(source: str) -> str:
    """Names and contents of the files; for remote files names, sizes and times, since reading them all is not free.

    Of a list of several, see `uris`, it is the digest of their digests.
    """
    several = uris(source)
    if len(several) > 1:
        return digest(" ".join(map(source_digest, several)))
    total = hashlib.sha256()
    for file in list_files(*several or [source]):
        total.update(file.name.encode() + b"\0")
        if isinstance(file.filesystem, fs.LocalFileSystem):
            with open(file.path, "rb") as opened:
                total.update(hashlib.file_digest(opened, "sha256").digest())
        else:
            info = file.filesystem.get_file_info(file.path)
            total.update(f"{info.size} {info.mtime_ns}".encode())
    return digest(total.digest())


def _expand(source: str) -> list[SourceFile]:
    try:
        filesystem, path = _open(source)
        if any(mark in source for mark in "*?["):
            return _matching(filesystem, path)
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.Directory:
            selector = fs.FileSelector(path, recursive=True)
            return _files(filesystem, filesystem.get_file_info(selector))
        return _files(filesystem, [info])
    except OSError as error:
        raise InputError(f"{source}: cannot be listed: {error}") from None


def _open(source: str) -> tuple[fs.FileSystem, str]:
    if source.startswith("s3://"):
        filesystem, path = fs.FileSystem.from_uri(source.split("*")[0].split("?")[0].split("[")[0])
        return filesystem, source.removeprefix("s3://") if any(mark in source for mark in "*?[") else path
    if "://" in source and not source.startswith("file://"):
        raise InputError(f"{source}: unknown scheme; give a local path or s3://bucket/prefix")
    return fs.LocalFileSystem(), source.removeprefix("file://")


def _matching(filesystem: fs.FileSystem, pattern: str) -> list[SourceFile]:
    if isinstance(filesystem, fs.LocalFileSystem):
        return _files(filesystem, filesystem.get_file_info(sorted(glob.glob(pattern, recursive=True))))
    root = pattern.split("*")[0].split("?")[0].split("[")[0].rpartition("/")[0]
    found = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    return _files(filesystem, [info for info in found if PurePosixPath(info.path).match(pattern)])


def _files(filesystem: fs.FileSystem, infos: list[fs.FileInfo]) -> list[SourceFile]:
    files = [SourceFile(filesystem, info.path, info.size or 0) for info in infos if info.type == fs.FileType.File]
    return sorted((file for file in files if not file.name.startswith(".")), key=lambda file: file.path)

"""Where raw data lies: a file, a folder or a glob, local or s3://."""

import glob
import hashlib
import os
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
    changed: int = 0  # nanoseconds since 1970

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


def content_digest(source: str) -> str:
    """Names and contents of what lies at ``source``, whatever it is.

    For remote files names, sizes and times, since reading them all is not free. Of a list of several, see `uris`, it is
    the digest of their digests.

    Raises:
        InputError: nothing is there.
    """
    several = uris(source)
    if len(several) > 1:
        return digest(" ".join(map(content_digest, several)))
    files = _expand(*several or [source])
    if not files:
        raise InputError(f"{source}: no such file or folder, or an empty one")
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + b"\0")
        if isinstance(file.filesystem, fs.LocalFileSystem):
            with open(file.path, "rb") as opened:
                total.update(hashlib.file_digest(opened, "sha256").digest())
        else:
            info = file.filesystem.get_file_info(file.path)
            total.update(f"{info.size} {info.mtime_ns}".encode())
    return digest(total.digest())


def read_text(uri: str) -> str:
    """The text of one file, local or on S3.

    Raises:
        InputError: there is no such file, or it is no text.
    """
    files = _expand(uri)
    if len(files) != 1:
        raise InputError(f"{uri}: {'no such file' if not files else f'{len(files)} files, expected one'}")
    try:
        with files[0].filesystem.open_input_stream(files[0].path) as opened:
            return bytes(opened.read()).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{uri}: cannot be read as text: {error}") from None


def _expand(source: str) -> list[SourceFile]:
    try:
        filesystem, path = _open(source)
        if any(mark in source for mark in "*?[") and not os.path.exists(path):  # a name may hold brackets
            return _matching(filesystem, path)
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.Directory:
            selector = fs.FileSelector(path, recursive=True)
            return _files(filesystem, filesystem.get_file_info(selector))
        return _files(filesystem, [info])
    except (OSError, ValueError) as error:  # Arrow's name for an address that cannot be one is a ValueError
        raise InputError(f"{source!r}: cannot be listed: {error}") from None


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
    files = [
        SourceFile(filesystem, info.path, info.size or 0, info.mtime_ns or 0)
        for info in infos
        if info.type == fs.FileType.File
    ]
    return sorted((file for file in files if not file.name.startswith(".")), key=lambda file: file.path)

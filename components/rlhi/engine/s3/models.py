"""A model that lies on S3, in a folder of this machine: fetched once, and known by the digest of its listing.

What is no weights comes when the model is opened, the weights when somebody loads them. A file gets its name when it is
whole, so a fetch that was killed goes on at the file where it was. Of several processes one fetches, the others wait.
"""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import ClientError

from rlhi.config import digest
from rlhi.engine.embedded import cache_root
from rlhi.engine.s3.bucket import Object, same
from rlhi.engine.s3.files import Files
from rlhi.errors import InputError
from rlhi.progress import Bar, bar

log = logging.getLogger("rlhi")
SCHEME = "s3://"
# in this order: where a model is there in several formats, the first is what transformers and vLLM read
FORMATS = (".safetensors", ".bin")
OTHERS = (".pth", ".pt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".ckpt", ".npz", ".tar", ".zip")
MOVED_BY = "RLHI_CACHE"
MEGABYTE = 1e6


@dataclass(frozen=True)
class Listing:
    """The files of the model at ``url``: those that say what it is, and its weights."""

    url: str
    small: Mapping[str, Object]
    weights: Mapping[str, Object]

    @property
    def digest(self) -> str:
        """Of names, sizes and tags: another one as soon as one file is another."""
        both = sorted({**self.small, **self.weights}.items())
        return digest(json.dumps([[name, found.size, found.tag] for name, found in both]))

    @property
    def folder(self) -> Path:
        """Where the files come to lie."""
        return cache_root() / "models" / self.digest


def look(url: str, revision: str | None, patience: float | None = None) -> Listing:
    """What there is at ``url``, once it is the model of ``revision``, the digest of a listing, if one is given.

    Raises:
        InputError: no model, another revision, or a server that does not answer.
    """
    objects = Files(url).objects("", patience)
    own = {name: found for name, found in objects.items() if "/" not in name}  # as from_pretrained looks
    if "config.json" not in own:
        below = next((name for name in objects if name.endswith("/config.json")), None)
        hint = f"there is {below}; " if below else ""
        raise InputError(f"{url}: holds no config.json; {hint}give the folder of a checkpoint, s3://BUCKET/FOLDER")
    formats = [{name: each for name, each in own.items() if name.endswith(ending)} for ending in FORMATS]
    weights = next(filter(None, formats), None)
    if weights is None:
        raise InputError(f"{url}: holds no weights ({', '.join(FORMATS)}); upload them beside config.json")
    small = {name: each for name, each in own.items() if not name.endswith((*FORMATS, *OTHERS))}
    listing = Listing(url, small, weights)
    if revision not in (None, listing.digest):
        raise InputError(
            f"{url}: is revision {listing.digest}, not {revision}: its files are others now; bring them back, or give "
            f"{url}@{listing.digest}"
        )
    return listing


def fetch(listing: Listing, wanted: Mapping[str, Object]) -> None:
    """Brings those of the ``wanted`` files that are not there yet.

    Raises:
        InputError: no room, or no right to write; a file changed meanwhile; or a server that does not answer.
    """
    try:
        listing.folder.mkdir(parents=True, exist_ok=True)
        with _alone(listing.folder):
            lacking = {name: each for name, each in wanted.items() if not _is_whole(listing.folder / name, each)}
            if lacking:
                _bring(listing, lacking)
    except OSError as error:
        said = error.strerror or error
        raise InputError(f"{listing.url}: cannot be kept in {listing.folder} ({said}); {_elsewhere()}") from None


def _bring(listing: Listing, lacking: Mapping[str, Object]) -> None:
    size = sum(each.size for each in lacking.values())
    free = shutil.disk_usage(listing.folder).free
    if size > free:
        raise InputError(
            f"{listing.url}: needs {size / MEGABYTE:.0f} MB, and {listing.folder} has {free / MEGABYTE:.0f} MB free; "
            f"{_elsewhere()}"
        )
    log.info("%s: revision %s, %.0f MB, to %s", listing.url, listing.digest, size / MEGABYTE, listing.folder)
    bucket = Files(listing.url)
    with bar(f"fetching {listing.url.rpartition('/')[2]}", round(size / MEGABYTE), "MB") as shown:
        for name, each in lacking.items():
            _bring_one(bucket, listing.folder / name, each, shown)


def _bring_one(bucket: Files, path: Path, wanted: Object, shown: Bar) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        bucket.download(path.name, partial, wanted.size, same(wanted.tag), lambda count: shown.update(count / MEGABYTE))
    except ClientError as error:
        why = error.response["Error"].get("Code")
        raise InputError(f"{bucket.url}/{path.name}: has changed while it was read ({why}); start again") from None
    partial.replace(path)


def _is_whole(path: Path, wanted: Object) -> bool:
    return path.exists() and path.stat().st_size == wanted.size


def _elsewhere() -> str:
    return f"set {MOVED_BY} to a folder on a larger disk, such as a profile's scratch"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the system lets go of the lock of one that is killed."""
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)

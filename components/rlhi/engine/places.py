"""Where a model's files are: a local folder, a hub, or S3.

An address can be pinned in one piece: ``hf://ORG/NAME@COMMIT``, ``s3://bucket/folder@DIGEST``. What is fetched lies in
the caches of the hub (``HF_HOME``) and of this project (``RLHI_CACHE``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rlhi.config import digest
from rlhi.engine import embedded
from rlhi.engine.s3 import models as s3
from rlhi.errors import InputError

HUB = "hf://"
WEIGHTS = {".bin", ".safetensors"}
# what from_pretrained reads beside weights in other formats; none of the copies that some models have in folders
FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
COPIES = ["*/*", "consolidated*"]


@dataclass(frozen=True)
class Place:
    """A folder or a hub's ``name`` and ``commit``, for from_pretrained, and what names the ``weights`` there.

    All but the weights is at hand; `fetch` brings those.
    """

    name: str
    commit: str | None
    weights: str
    fetch: Callable[[], None]


def nothing() -> None:
    """All is at hand."""


def pinned(name: str, revision: str | None) -> tuple[str, str | None]:
    """An address and its revision, which can stand behind it, after an @.

    Raises:
        InputError: two revisions, or no model of a hub.
    """
    if not name.startswith((HUB, s3.SCHEME)):
        return name, revision
    address, _, behind = name.partition("@")
    if behind and revision not in (None, behind):
        raise InputError(f"model.id={name!r}: model.revision={revision!r} is another; give one of them")
    if address.startswith(HUB):
        address = address.removeprefix(HUB).rstrip("/")
        if address.count("/") != 1:
            raise InputError(f"model.id={name!r}: is no model of a hub; give hf://ORG/NAME@REVISION")
    return address, behind or revision


def place_of(name: str, revision: str | None = None) -> Place:
    """Where the model is that a config calls ``name``.

    Raises:
        OSError: a folder without weights, or a hub that does not have it or is away.
        InputError: an address that cannot be, or S3 that does not have it or is away.
    """
    address, revision = pinned(name, revision)
    if address.startswith(s3.SCHEME):
        listing = s3.look(address, revision)
        s3.fetch(listing, listing.small)
        return Place(str(listing.folder), None, f"s3 {listing.digest}", partial(s3.fetch, listing, listing.weights))
    where = str(embedded.folder()) if address == "embedded" else address
    commit = _commit_of(where, revision)
    if commit is None:
        return Place(where, None, _files(Path(where)), nothing)
    return Place(where, commit, f"{where}@{commit}", partial(_from_hub, where, commit))


def without_weights(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """Name and revision, for from_pretrained, of what is asked for its tokenizer alone.

    Raises:
        InputError: an address that cannot be, or S3 that does not have it or is away.
    """
    address, revision = pinned(name, revision)
    if not address.startswith(s3.SCHEME):
        return address, revision
    listing = s3.look(address, revision)
    s3.fetch(listing, listing.small)
    return str(listing.folder), None


def _commit_of(name: str, revision: str | None) -> str | None:
    """What the revision of a hub's model points at now; all of the model is loaded by it, whenever that will be.

    Null for a local folder.
    """
    from transformers.utils import cached_file

    if Path(name).is_dir():
        return None
    return Path(cached_file(name, "config.json", revision=revision)).parent.name


def _from_hub(name: str, commit: str) -> None:
    """The files that from_pretrained would ask for one by one; pickled weights are left to it."""
    from huggingface_hub import snapshot_download

    snapshot_download(name, revision=commit, allow_patterns=FILES, ignore_patterns=COPIES)


def _files(folder: Path) -> str:
    """Digest of a model's folder: of names, sizes and times of change, not of the gigabytes in them.

    A copied folder is taken for another model.

    Raises:
        OSError: it holds no weights; without this, that would show when the first reply is asked for.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not {path.suffix for path in files} & WEIGHTS:
        raise OSError(f"{folder} holds no weights ({', '.join(sorted(WEIGHTS))})")
    found = [(str(path.relative_to(folder)), path.stat()) for path in files]
    return digest("\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in found))

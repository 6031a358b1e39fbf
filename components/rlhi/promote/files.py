"""The files of a registered version, on this machine."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from rlhi import manifest
from rlhi.errors import InputError
from rlhi.promote.registry import Registry, Version
from rlhi.runs import refused


def folder_of(registry: Registry, version: Version, into: Path) -> Path:
    """The model's folder, as dpo made it: where it lies, or fetched ``into`` a folder.

    Raises:
        InputError: its files are gone, cannot be fetched, or are not what was registered.
    """
    name = f"{registry.name} version {version.number}"
    if version.digest is None:
        raise InputError(f"{name}: was not registered by rlhi, so nothing can be held against it; give the alias away")
    folder = _local(version.source) or _fetched(registry, version.source, into)
    if not folder.exists():
        raise InputError(f"{name}: its files are no longer at {version.source}; roll back, or put them there again")
    found = manifest.load(folder).digest
    if found != version.digest:
        raise InputError(f"{version.source}: is not what was registered as {name}; its digest is {found}")
    return folder


def _local(source: str) -> Path | None:
    return Path(unquote(urlsplit(source).path)) if source.startswith("file:") else None


def _fetched(registry: Registry, source: str, into: Path) -> Path:
    with refused(registry.uri):
        from mlflow.artifacts import download_artifacts

        into.mkdir(parents=True, exist_ok=True)
        return Path(download_artifacts(artifact_uri=source, dst_path=str(into), tracking_uri=registry.uri))

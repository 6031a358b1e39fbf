"""Which outputs of a work folder hold a user, and how a user is forgotten.

Every output lists its users beside its rows. The folder has a secret, ``salt``, that turns the source's ids into those
of the outputs, and a list, ``forget.txt``, of users whose rows no later run reads.
"""

import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from rlhi import manifest, study
from rlhi.artifacts import user_rows
from rlhi.config import secret_variable
from rlhi.engine import replies, store
from rlhi.errors import InputError
from rlhi.ingest.identity import Hasher, read_users

LIST = "forget.txt"
STORE = "store"
PLACES = ("runs", STORE)
# what tracking logged where the folder has its own MLflow: beside its manifest, of an experiment's page in a folder
COPIES = tuple(f"mlflow-artifacts/*/artifacts/{folder}{manifest.NAME}" for folder in ("", f"{study.FOLDER}/"))
SALT = "salt"


def salt_of(work: Path) -> str:
    """The salt of ``RLHI_SALT``, else the folder's own, made where there is none.

    Raises:
        InputError: the file cannot be read or written.
    """
    given = os.environ.get(secret_variable("salt"))
    if given:
        return given
    path = work / SALT
    try:
        if not path.exists():
            work.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        return path.read_text().strip()
    except OSError as error:
        raise InputError(f"{path}: cannot be read or written ({error.strerror}); set RLHI_SALT") from None


def holding(work: Path, users: Iterable[str]) -> dict[Path, int]:
    """The outputs in ``work`` that hold rows of any of ``users`` (the source's ids or ours), and how many rows.

    Raises:
        InputError: an output that cannot tell, since an earlier version made it.
    """
    hasher = Hasher(salt_of(work))
    sought = {each for user in users for each in (user, hasher.user(user))}
    found = {folder: user_rows(folder) for folder in _outputs(work)}
    return {
        folder: sum(rows.get(user, 0) for user in sought)
        for folder, rows in found.items()
        if not sought.isdisjoint(rows)
    }


def remove(work: Path, folders: Collection[Path]) -> None:
    """Deletes outputs, and what MLflow copied of them into ``work``; each is computed again when a run needs it."""
    digests = {manifest.load(folder).digest for folder in folders}
    logged = [path for pattern in COPIES for path in work.glob(pattern)]
    copies = [path for path in logged if json.loads(path.read_text()).get("digest") in digests]
    for folder in [*folders, *(path.parent for path in copies)]:
        shutil.rmtree(folder)


def remove_replies(work: Path) -> bool:
    """Deletes the stored replies of models, which quote what users wrote; they are asked for again. False for none.

    Those of the folder, and those at the place that ``RLHI_REPLIES`` names, a file or S3. All of them: a reply does not
    tell whose words it is made of.

    Raises:
        InputError: a file cannot be deleted, or S3 does not answer or refuses.
    """
    named = os.environ.get("RLHI_REPLIES")
    places = [str(work / STORE / store.NAME), *([named] if named else [])]
    try:
        return sum(replies.delete(place) for place in places) > 0
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be deleted ({error.strerror}); delete it by hand") from None


def remove_checkpoints(work: Path) -> None:
    """Deletes what trainings that never ended have left: weights are made of what users wrote, too.

    Those of the folder, and those at the place that ``RLHI_CHECKPOINTS`` names.

    Raises:
        InputError: S3 does not answer or refuses.
    """
    shutil.rmtree(work / STORE / "checkpoints", ignore_errors=True)
    named = os.environ.get("RLHI_CHECKPOINTS", "")
    if named.startswith(replies.REMOTE):
        from rlhi.engine.s3.files import Files

        for own in ("dpo-", "job-"):
            Files(named).erase(own)
    elif named:
        for found in Path(named).glob("dpo-*"):
            shutil.rmtree(found)


def remember(work: Path, users: Iterable[str]) -> Path:
    """Adds to the list of users that no later run in ``work`` reads; gives the list."""
    path = work / LIST
    known = read_users(str(path)) if path.exists() else frozenset()
    path.write_text("".join(f"{user}\n" for user in sorted({*known, *users})))
    return path


def listed(work: Path, given: str) -> str:
    """The file of users to forget: the given one, the folder's own, or that with the given ones added; empty for none.

    Raises:
        InputError: the given file cannot be read or names nobody.
    """
    own = work / LIST
    if not own.exists():
        return given
    return str(remember(work, read_users(given)) if given else own)


def table(rows: Mapping[Path, int], work: Path) -> list[str]:
    """A line per output: where it is, and how many rows."""
    return [f"{count:>8}  {folder.relative_to(work)}" for folder, count in sorted(rows.items())]


def _outputs(work: Path) -> list[Path]:
    """Every complete output of the runs and of the store; MLflow has copies of manifests, which are none."""
    return sorted(path.parent for place in PLACES for path in (work / place).rglob(manifest.NAME))

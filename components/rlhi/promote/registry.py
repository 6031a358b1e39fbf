"""The model registry of MLflow: versions of one model, and the aliases ``champion`` and ``candidate``.

Who was champion is written down as tags of versions: ``rlhi.replaced`` (whom this one replaced), ``rlhi.replaced_by``
and ``rlhi.replaced_at``, ``rlhi.champion_since``. That is what a rollback goes by.

MLflow cannot move an alias on condition. It is read again right before it is moved, so two promotions that overlap stop
the later one; a moment of some milliseconds is left.
"""

import datetime
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhi.errors import InputError
from rlhi.runs import refused

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CANDIDATE = "champion", "candidate"
DIGEST = "rlhi.digest"
REPLACED, SINCE = "rlhi.replaced", "rlhi.champion_since"
REPLACED_BY, REPLACED_AT = "rlhi.replaced_by", "rlhi.replaced_at"
ROLLED_BACK = "rlhi.rolled_back_at"
NONE = "none"  # whom the first champion replaced
ABSENT = re.compile(r"Registered model .*not found", re.IGNORECASE)  # and not whatever else answers with 404
LONGEST = 5000  # characters of a description


@dataclass(frozen=True)
class Version:
    """One version of the model. ``digest`` is that of the model's folder, null where nobody of ours registered it."""

    number: str
    source: str
    run_id: str
    tags: Mapping[str, str]

    @property
    def digest(self) -> str | None:
        """As dpo's manifest has it."""
        return self.tags.get(DIGEST)


class Registry:
    """The versions of the model ``name`` at ``uri``. Every method raises `InputError` where MLflow cannot be asked."""

    def __init__(self, name: str, uri: str) -> None:
        self.name = name
        self.uri = uri
        with refused(uri):
            from mlflow import MlflowClient

            self.client: MlflowClient = MlflowClient(tracking_uri=uri)

    def holder(self, alias: str) -> Version | None:
        """The version that has the alias; null where none has, or there is no such model."""
        from mlflow.exceptions import MlflowException

        with refused(self.uri):
            try:
                return _version(self.client.get_model_version_by_alias(self.name, alias))
            except MlflowException as error:
                if ABSENT.search(str(error)):
                    return None
                raise

    def version(self, number: str) -> Version:
        """The version of that number.

        Raises:
            InputError: there is none.
        """
        found = next((each for each in self.versions() if each.number == number), None)
        if found is None:
            raise InputError(f"{self.name} version {number}: no such version at {self.uri}; look at its page there")
        return found

    def versions(self) -> list[Version]:
        """All of them, oldest first."""
        with refused(self.uri):
            asked = f"name = '{self.name}'"
            page = self.client.search_model_versions(asked)
            found = list(page)
            while page.token:
                page = self.client.search_model_versions(asked, page_token=page.token)
                found += page
        return sorted(map(_version, found), key=lambda each: int(each.number))

    def add(self, source: str, run_id: str, tags: Mapping[str, str], description: str) -> Version:
        """A new version, whose files stay at ``source``; the model is made with its first version."""
        from mlflow.exceptions import MlflowException

        with refused(self.uri):
            try:
                self.client.create_registered_model(self.name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            made = self.client.create_model_version(
                self.name, source, run_id, tags=dict(tags), description=description[:LONGEST]
            )
        return _version(made)

    def tell(self, number: str, tags: Mapping[str, str], description: str | None = None) -> None:
        """Writes tags, and maybe another description, onto a version."""
        with refused(self.uri):
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, number, key, value)
            if description is not None:
                self.client.update_model_version(self.name, number, description[:LONGEST])

    def point(self, alias: str, number: str) -> None:
        """Gives the alias to a version."""
        with refused(self.uri):
            self.client.set_registered_model_alias(self.name, alias, number)

    def crown(self, number: str, instead_of: Version | None) -> None:
        """Makes a version champion ``instead_of`` the one it was judged against, and writes down who replaced whom.

        Raises:
            InputError: that one is no longer champion.
        """
        self.still(instead_of)
        self.point(CHAMPION, number)
        before = NONE if instead_of is None else instead_of.number
        self.tell(number, {REPLACED: before, SINCE: now()})
        if instead_of is not None:
            self.tell(instead_of.number, {REPLACED_BY: number, REPLACED_AT: now()})
        candidate = self.holder(CANDIDATE)
        if candidate is not None and candidate.number == number:
            with refused(self.uri):
                self.client.delete_registered_model_alias(self.name, CANDIDATE)

    def still(self, champion: Version | None) -> None:
        """Refuses to go on where the champion is another one meanwhile.

        Raises:
            InputError: it is.
        """
        found = self.holder(CHAMPION)
        then, now_ = (None if each is None else each.number for each in (champion, found))
        if then != now_:
            raise InputError(
                f"{self.name}: the champion was {_named(then)} when this was judged, and is {_named(now_)} now; nothing"
                " was moved: judge again, against the new champion"
            )


def registry_uri(given: str | None = None) -> str:
    """Where MLflow is.

    Raises:
        InputError: nobody says.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise InputError("MLFLOW_TRACKING_URI: is not set, so there is no registry; set it to that of an MLflow server")
    return uri


@contextmanager
def closing(registry: Registry, run_id: str) -> Iterator[str]:
    """Ends a run of ours when what belongs into it is there, or has failed."""
    from rlhi.runs import close_run

    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    finally:
        with refused(registry.uri):
            close_run(registry.client, run_id, status)


def now() -> str:
    """The time as tags have it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _named(number: str | None) -> str:
    return "none" if number is None else f"version {number}"


def _version(made: "ModelVersion") -> Version:
    return Version(str(made.version), made.source or "", made.run_id or "", dict(made.tags or {}))

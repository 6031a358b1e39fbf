"""A KFP server, by its own client: what is uploaded once, started, scheduled, and how a run stands."""

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from pipelines.reach import Address
from rlhi.errors import InputError

MAJOR = 2
WAIT = urllib3.Timeout(connect=5, read=30)
VERSIONS = ("tag_name", "apiServerTagName")  # of the API server itself, and through its UI


class NoAnswerError(InputError):
    """The server does not answer now, and may later."""


@dataclass(frozen=True)
class Version:
    """A pipeline on the server, and whether it was there before."""

    pipeline: str
    id: str
    new: bool


@dataclass(frozen=True)
class Order:
    """What is to be run: once, or by a schedule, which is a cron expression of six fields."""

    name: str
    experiment: str
    parameters: Mapping[str, str]
    root: str
    service_account: str
    cron: str = ""


@dataclass(frozen=True)
class State:
    """How a run stands: its own state, and its tasks' by name; what failed, with what is said of it."""

    state: str
    tasks: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)


def check_version(address: Address) -> None:
    """Asks which KFP it is.

    Raises:
        InputError: none, or one of another major version.
    """
    status, _ = _get(address, "/apis/v2beta1/healthz")
    old_status, old = _get(address, "/apis/v1beta1/healthz")
    if status in (401, 403):
        raise InputError(f"{address.url}: refuses ({status}); give a token that may, by --token-file")
    said = next((str(old[name]) for name in VERSIONS if old.get(name)), "")
    major = said.lstrip("v").partition(".")[0]
    if status == 404 and old_status == 200:
        raise InputError(f"{address.url}: KFP {said or '1'} is too old; version {MAJOR} is needed")
    if status != 200:
        raise InputError(f"{address.url}: is no KFP server (/apis/v2beta1/healthz answers {status}); look at --host")
    if major.isdigit() and int(major) != MAJOR:
        raise InputError(f"{address.url}: KFP {said} is of another major version; version {MAJOR} is needed")


class Server:
    """One server. Every method raises `NoAnswerError` where nobody answers, and `InputError` where it refuses."""

    def __init__(self, address: Address, namespace: str, ui: str | None = None) -> None:
        self.ui = (address.url if ui is None else ui).rstrip("/")
        self._url = address.url
        with self._explained():
            self._client = _client(address)
            several = self._client.get_kfp_healthz().multi_user
        self._namespace = namespace if several else None  # a server for one user refuses namespaces

    def upload(self, name: str, version: str, package: Path, description: str) -> Version:
        """The version of the pipeline ``name``, uploaded if it is not there yet."""
        with self._explained():
            pipeline = self._client.get_pipeline_id(name) or self._make(name, description)
            listed = self._client.list_pipeline_versions(pipeline, filter=_named(version)).pipeline_versions
            if listed:
                return Version(pipeline, listed[0].pipeline_version_id, new=False)
            made = self._client.upload_pipeline_version(str(package), version, pipeline_id=pipeline)
            return Version(pipeline, made.pipeline_version_id, new=True)

    def start(self, order: Order, version: Version) -> str:
        """Starts a run; gives its id."""
        with self._explained():
            made = self._client.run_pipeline(self._experiment(order), order.name, **_asked(order, version))
            return str(made.run_id)

    def schedule(self, order: Order, version: Version) -> tuple[str, bool]:
        """Makes a recurring run; gives its id, and whether it is new. Runs follow each other, never side by side.

        Raises:
            InputError: there is another recurring run of this name.
        """
        with self._explained():
            experiment = self._experiment(order)
            listed = self._client.list_recurring_runs(experiment_id=experiment, filter=_named(order.name))
            for found in listed.recurring_runs or []:
                if _same(found, order, version):
                    return str(found.recurring_run_id), False
                raise InputError(
                    f"--schedule: there is another recurring run {order.name} ({found.recurring_run_id}); delete that"
                    " one, or give another --name, which reads the source anew"
                )
            made = self._client.create_recurring_run(
                experiment,
                order.name,
                cron_expression=order.cron,
                max_concurrency=1,
                no_catchup=True,
                **_asked(order, version),
            )
            return str(made.recurring_run_id), True

    def state(self, run: str) -> State:
        """How a run stands now."""
        with self._explained():
            found = self._client.get_run(run)
        details = (found.run_details.task_details if found.run_details else None) or []
        tasks = {each.display_name: str(each.state) for each in details}
        errors = {each.display_name: each.error.message or "" for each in details if each.error}
        return State(str(found.state), tasks, errors)

    def _make(self, name: str, description: str) -> str:
        """An empty pipeline: the one that the client makes by itself has a version under the pipeline's own name."""
        body = self._client.api_models.V2beta1Pipeline(name=name, display_name=name, description=description)
        return str(self._client.pipelines.pipeline_service_create_pipeline(body).pipeline_id)

    def _experiment(self, order: Order) -> str:
        return str(self._client.create_experiment(order.experiment, namespace=self._namespace).experiment_id)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what KFP's client raises into one line, and keeps what it prints to itself."""
        from kfp_server_api import ApiException

        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except ApiException as error:
            kind = NoAnswerError if error.status == 429 or (error.status or 500) >= 500 else InputError
            raise kind(f"{self._url}: {_said(error)} ({error.status})") from None
        except (HTTPError, OSError) as error:
            raise NoAnswerError(f"{self._url}: no answer ({' '.join(str(error).split())[:200]})") from None


def _client(address: Address) -> Any:
    from kfp.client import Client
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    token = address.token_file
    credentials = ServiceAccountTokenVolumeCredentials(path=str(token)) if token is not None else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that it needs KFP 2, which has been asked for
        return Client(host=address.url, credentials=credentials)


def _asked(order: Order, version: Version) -> dict[str, Any]:
    return {
        "params": dict(order.parameters),
        "pipeline_id": version.pipeline,
        "version_id": version.id,
        "pipeline_root": order.root,
        "service_account": order.service_account,
    }


def _same(found: Any, order: Order, version: Version) -> bool:
    return bool(
        found.pipeline_version_reference.pipeline_version_id == version.id
        and (found.runtime_config.parameters or {}) == dict(order.parameters)
        and found.trigger.cron_schedule is not None
        and found.trigger.cron_schedule.cron == order.cron
    )


def _named(name: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _get(address: Address, path: str) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {address.token}"} if address.token_file else {}
    try:
        with urllib3.PoolManager(timeout=WAIT, retries=False) as pool:
            answer = pool.request("GET", address.url + path, headers=headers)
    except HTTPError as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{address.url}: no answer ({said}); look at --host, or give --port-forward") from None
    try:
        found = json.loads(answer.data)
    except ValueError:
        found = {}
    return answer.status, found if isinstance(found, dict) else {}


def _said(error: Any) -> str:
    """The message of a refusal; where there is none, what was sent."""
    try:
        told = json.loads(error.body)
        return " ".join(str(told.get("message") or told.get("error") or error.reason).split())[:300]
    except (AttributeError, TypeError, ValueError):
        return " ".join(str(error.body or error.reason).split())[:300]

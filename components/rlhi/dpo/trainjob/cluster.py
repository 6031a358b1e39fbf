"""The `TrainJob`s of one namespace, by the API of Kubernetes; each error is one line that names the way out."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from urllib3.exceptions import HTTPError

from rlhi.dpo.trainjob.manifest import GROUP, VERSION
from rlhi.dpo.trainjob.refusals import reason, way_out
from rlhi.errors import InputError

NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
WAIT = (10, 60)  # seconds to connect, and for an answer
WATCH = 240  # seconds that a watch lasts; after it, what there is is listed again
PAUSE = 1.0  # seconds between one watch and the next
PATIENCE = 900.0  # seconds without any answer: more than an upgrade of a control plane takes
log = logging.getLogger("rlhi")


class NoAnswerError(InputError):
    """The API does not answer now, and may later."""


class TrainJobs:
    """What can be done to them."""

    def __init__(self, api: Any, namespace: str) -> None:
        self.namespace = namespace
        self._api = api
        self._place = (GROUP, VERSION, namespace, "trainjobs")

    def create(self, body: dict[str, Any]) -> bool:
        """Makes one; false where there is one of that name.

        Raises:
            InputError: it is refused; with Trainer before 2.2 too, which knows no ``runtimePatches``.
        """
        ask = self._api.create_namespaced_custom_object
        made = self._answer(lambda: ask(*self._place, body, field_validation="Strict", _request_timeout=WAIT), (409,))
        return made is not None

    def find(self, name: str) -> dict[str, Any] | None:
        """The one of that name, as it is now."""
        return self._list(name)[0]

    def delete(self, found: dict[str, Any]) -> None:
        """Deletes the one that was ``found``, if it is still there, and no later one of its name."""
        ask = self._api.delete_namespaced_custom_object
        name, only = found["metadata"]["name"], {"preconditions": {"uid": found["metadata"]["uid"]}}
        self._answer(lambda: ask(*self._place, name, body=only, _request_timeout=WAIT), (404, 409))

    def states(self, name: str) -> Iterator[dict[str, Any] | None]:
        """How the one of that name is now, then whenever it has changed; null where there is none. Never ends.

        It is listed, then watched from there. A watch ends, breaks, or asks for what the server no longer has: all
        the same, it is listed again.

        Raises:
            InputError: it may not be watched, or nothing was answered for a quarter of an hour.
        """
        answered = time.monotonic()
        while True:
            try:
                for state in self._listed_then_watched(name):
                    answered = time.monotonic()
                    yield state
            except NoAnswerError as error:
                if time.monotonic() - answered > PATIENCE:
                    raise
                log.warning("%s; asked again", error)
            time.sleep(PAUSE)

    def _listed_then_watched(self, name: str) -> Iterator[dict[str, Any] | None]:
        found, version = self._list(name)
        yield found
        events = watch.Watch().stream(
            self._api.list_namespaced_custom_object,
            *self._place,
            field_selector=f"metadata.name={name}",
            resource_version=version,
            timeout_seconds=WATCH,
            _request_timeout=(WAIT[0], WATCH + WAIT[1]),
        )
        with closing(events):
            while event := self._answer(lambda: next(events, None), (410,)):  # 410: too old a version
                yield None if event["type"] == "DELETED" else event["raw_object"]

    def _list(self, name: str) -> tuple[dict[str, Any] | None, str]:
        ask = self._api.list_namespaced_custom_object
        one = f"metadata.name={name}"
        listed = self._answer(lambda: ask(*self._place, field_selector=one, _request_timeout=WAIT))
        return next(iter(listed["items"]), None), listed["metadata"]["resourceVersion"]

    def _answer(self, ask: Callable[[], Any], passed: tuple[int, ...] = ()) -> Any:
        """What is answered; null for a status that the caller lets pass."""
        try:
            return ask()
        except ApiException as error:
            if error.status in passed:
                return None
            if error.status == 429 or error.status >= 500:
                raise NoAnswerError(f"Kubernetes API: {reason(error)}") from None
            raise InputError(way_out(error, self.namespace)) from None
        except (HTTPError, OSError) as error:
            raise NoAnswerError(f"Kubernetes API: no answer ({error})") from None


def connect() -> TrainJobs:
    """The cluster of this pod, and its namespace; else those that the kubeconfig names.

    Raises:
        InputError: neither is there.
    """
    settings = client.Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=settings)
            namespace = NAMESPACE.read_text().strip()
        else:
            file = os.environ.get("KUBECONFIG")
            config.load_kube_config(config_file=file, client_configuration=settings)
            namespace = config.list_kube_config_contexts(config_file=file)[1]["context"].get("namespace", "default")
    except (config.ConfigException, OSError) as error:
        raise InputError(
            f"dpo.nodes: several nodes need a Kubernetes cluster, and none is known here ({error}); run dpo in a pod"
            " with a service account, or name a cluster in KUBECONFIG"
        ) from None
    return TrainJobs(client.CustomObjectsApi(client.ApiClient(settings)), namespace)

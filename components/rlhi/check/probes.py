"""One question each to what a run needs; no answer is one line that names the way out."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

import urllib3

from rlhi import watermark
from rlhi.engine import places
from rlhi.engine.s3 import models as s3
from rlhi.engine.s3.bucket import Bucket
from rlhi.errors import InputError
from rlhi.sources import content_digest, list_files

PATIENCE = 20.0  # seconds for a bucket
WAIT = urllib3.Timeout(connect=5, read=15)  # seconds for one answer by HTTP
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # what Kubernetes gives a pod to ask it with
SCHEME = "https"  # of Kubernetes
HUB = "https://huggingface.co"


class UncheckedError(Exception):
    """Nobody here can tell; says why."""


def variable(name: str) -> None:
    """Whether a variable is set.

    Raises:
        InputError: it is not, or is empty.
    """
    if not os.environ.get(name):
        raise InputError("is not set; make the Secret or the ConfigMap, with the key that the profile names for it")


def bucket(place: str) -> None:
    """Whether objects can be written, read and deleted.

    Raises:
        InputError: they cannot.
    """
    at, name, body = Bucket(place), f"check/{uuid.uuid4().hex}", b"can be deleted"
    at.put(name, body, PATIENCE)
    try:
        if at.get(name, PATIENCE).body != body:
            raise InputError("what was written is not what is read; look at the server")
    finally:
        at.delete([name], PATIENCE)


def source(uri: str) -> None:
    """Whether there is something to read.

    Raises:
        InputError: there is not.
        UncheckedError: earlier runs have read all of it; the stages have nothing to do then.
    """
    try:
        watermark.unseen(uri, list_files(uri))
    except watermark.NothingNewError as nothing:
        raise UncheckedError(f"{nothing}; the stages have nothing to do") from None


def data(listed: str) -> None:
    """Whether each of several URIs, commas between them, holds something.

    Raises:
        InputError: one does not.
    """
    content_digest(listed)


def mlflow() -> None:
    """Whether MLflow answers to its API; its health page does so even where it refuses the name of the host.

    Raises:
        InputError: it does not.
        UncheckedError: none is configured.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri.startswith("http"):
        raise UncheckedError("MLFLOW_TRACKING_URI names no server; nothing will be tracked on one")
    url = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search"
    status, said = _ask("POST", url, body=json.dumps({"max_results": 1}), headers={"Content-Type": "application/json"})
    if status == 403:
        raise InputError(f"{uri} refuses (403: {said}); start it with --allowed-hosts for the name of its Service")
    if status != 200:
        raise InputError(f"{uri} answers {status}: {said}")


def server(url: str, variable: str) -> None:
    """Whether a server of models answers with the key that the variable holds, or without one where it is not set.

    Raises:
        InputError: it does not.
    """
    status, said = _ask("GET", f"{url.rstrip('/')}/models", headers=_bearer(variable))
    if status in (401, 403):
        given = (
            "refuses the key in" if os.environ.get(variable) else "wants a key, by a secret of the profile that sets"
        )
        raise InputError(f"{given} {variable} ({status})")
    if status != 200:
        raise InputError(f"answers {status}: {said}")


def model(name: str) -> None:
    """Whether a model can be read, on Hugging Face with the token that is set; one in the image is not asked for.

    Raises:
        InputError: it cannot.
        UncheckedError: it is a folder, or this pod is told to stay offline.
    """
    if name.startswith(s3.SCHEME):
        s3.look(*places.pinned(name, None), PATIENCE)
        return
    identity, _, revision = name.removeprefix(places.HUB).partition("@")
    if identity == "embedded":
        return
    if identity.startswith((".", "/")):
        raise UncheckedError("is a folder, which only the pods that read it see")
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        raise UncheckedError("HF_HUB_OFFLINE is set; it must be in the caches of the pods")
    url = f"{os.environ.get('HF_ENDPOINT', HUB).rstrip('/')}/api/models/{identity}/revision/{revision or 'main'}"
    status, _ = _ask("GET", url, headers=_bearer("HF_TOKEN"))
    if status in (401, 403):
        raise InputError("may not be read; give a token that may, as the variable HF_TOKEN by a secret of the profile")
    if status != 200:
        raise InputError(f"is not there ({status}); look at its id and revision")


def accelerator(resource: str) -> None:
    """Whether a node has it.

    Raises:
        InputError: none has.
        UncheckedError: nodes cannot be listed from here.
    """
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
    if not host or not (ACCOUNT / "token").exists():
        raise UncheckedError("no pod of a cluster, so its nodes cannot be asked")
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}"}
    status, body = _ask("GET", f"{SCHEME}://{host}:{port}/api/v1/nodes", headers=headers, whole=True)
    if status != 200:
        raise UncheckedError(f"the service account may not list nodes ({status})")
    if not any(_amount(node, resource) for node in json.loads(body)["items"]):
        raise InputError("no node has it; make the pool, install its device plugin, or set autoscaled in the profile")


def _amount(node: Any, resource: str) -> int:
    return int(node.get("status", {}).get("allocatable", {}).get(resource, 0))


def _bearer(variable: str) -> dict[str, str]:
    token = os.environ.get(variable)
    return {"Authorization": f"Bearer {token}"} if token else {}


def _ask(method: str, url: str, *, whole: bool = False, **given: Any) -> tuple[int, str]:
    """The status, and the first line of what is said.

    Raises:
        InputError: nobody answers.
    """
    authority = ACCOUNT / "ca.crt"
    trusted = str(authority) if whole and authority.exists() else None
    try:
        with urllib3.PoolManager(timeout=WAIT, retries=False, ca_certs=trusted) as pool:
            answer = pool.request(method, url, **given)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise InputError(f"{url} does not answer ({' '.join(str(error).split())})") from None
    said = answer.data.decode(errors="replace")
    return answer.status, said if whole else " ".join(said.split())[:200]

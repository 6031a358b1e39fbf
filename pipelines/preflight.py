"""What can be known to be wrong before anything is created.

What cannot be asked from here is said and stops nothing; the run's first task asks again, from a pod.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import boto3

from pipelines import registry
from pipelines.profiles import Profile, Secret
from rlhi.engine.s3.bucket import Bucket, MissingError
from rlhi.errors import InputError
from rlhi.sources import list_files, uris

ENDPOINT = "AWS_ENDPOINT_URL"
PATIENCE = 10.0  # seconds for a bucket
WAIT = (5, 10)  # seconds to connect to Kubernetes, and for its answer


class UncheckedError(Exception):
    """It cannot be asked from here; why."""


@dataclass(frozen=True)
class Asked:
    """What must be there: images and Secrets of all pods, and data, as lists of URIs with commas between them."""

    images: Sequence[str]
    secrets: Sequence[Secret]
    data: Sequence[str]


def check(given: Asked, profile: Profile, context: str | None) -> list[str]:
    """Images, Secrets, the bucket and the data; gives a line for each that could not be asked.

    Raises:
        InputError: one of them is not there.
    """
    asked: list[Callable[[], None]] = [partial(_pushed, each) for each in given.images]
    asked.append(partial(_secrets, given.secrets, profile.namespace, context))
    stored = [partial(_source, uri) for each in given.data for uri in uris(each)]
    unchecked = []
    with _as_pods_see_it(profile.env):
        if any(ENDPOINT in keys for keys in profile.config_maps.values()) and ENDPOINT not in os.environ:
            unchecked.append(f"bucket and data: only the cluster knows the address of its S3; set {ENDPOINT} here too")
        else:
            asked += [partial(_bucket, profile.root), *stored]
        for ask in asked:
            try:
                ask()
            except UncheckedError as why:
                unchecked.append(str(why))
    return unchecked


@contextmanager
def _as_pods_see_it(env: Mapping[str, str]) -> Iterator[None]:
    """The S3 server is the pods', where this machine has no address of its own for it."""
    added = {name: value for name, value in env.items() if name.startswith("AWS_") and name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _pushed(reference: str) -> None:
    try:
        registry.check(reference)
    except registry.UnknownError as error:
        raise UncheckedError(f"image {error}") from None


def _bucket(place: str) -> None:
    if boto3.Session().get_credentials() is None:
        raise UncheckedError(f"{place}: no AWS_* credentials here")
    try:
        Bucket(place).must_exist(PATIENCE)
    except MissingError:
        raise
    except InputError as error:  # it is silent, or says nothing to whom it does not know
        raise UncheckedError(str(error)) from None


def _source(uri: str) -> None:
    plain = re.split(r"[*?\[]", uri)[0]
    _bucket("/".join(plain.split("/")[:3]))
    list_files(uri)


def _secrets(secrets: Sequence[Secret], namespace: str, context: str | None) -> None:
    from kubernetes.client.rest import ApiException
    from urllib3.exceptions import HTTPError

    names = ", ".join(dict.fromkeys(secret.name for secret in secrets))
    if not secrets:
        return
    api, cluster = _cluster(context, names)
    for secret in secrets:
        try:
            held = api.read_namespaced_secret(secret.name, namespace, _request_timeout=WAIT).data or {}
        except ApiException as error:
            if error.status == 404:
                raise InputError(
                    f"Secret {secret.name}: not in namespace {namespace} of {cluster}; make it, or choose another"
                    " cluster by --context"
                ) from None
            raise UncheckedError(f"Secret {names}: {cluster} does not show it ({error.status})") from None
        except (HTTPError, OSError):
            raise UncheckedError(f"Secret {names}: {cluster} does not answer") from None
        if missing := sorted(set(secret.env.values()) - held.keys()):
            raise InputError(f"Secret {secret.name}: has no key {', '.join(missing)}; add it, or correct the profile")


def _cluster(context: str | None, names: str) -> tuple[Any, str]:
    """The API of the cluster, by this pod's account or the kubeconfig, and what it is called."""
    from kubernetes import client, config

    settings = client.Configuration()
    settings.retries = False
    try:
        if context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=settings)
            named = "this cluster"
        else:
            config.load_kube_config(os.environ.get("KUBECONFIG"), context, client_configuration=settings)
            named = f"the cluster at {settings.host}"
    except config.ConfigException as error:
        if context is not None:
            raise InputError(f"--context {context}: {error}") from None
        raise UncheckedError(f"Secret {names}: no cluster is known here (no kubeconfig)") from None
    return client.CoreV1Api(client.ApiClient(settings)), named

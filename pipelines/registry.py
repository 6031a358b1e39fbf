"""Whether an image has been pushed, by the HTTP API of its registry."""

import re
from dataclasses import dataclass
from typing import Any

import urllib3
from docker import auth, errors
from urllib3.exceptions import HTTPError

from rlhi.errors import InputError

WAIT = urllib3.Timeout(connect=5, read=10)
HUB = f"registry-1.{auth.INDEX_NAME}"  # of images without a registry
LOCAL = ("localhost", "127.0.0.1", "[::1]")
KINDS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


class UnknownError(Exception):
    """The registry does not say; why."""


@dataclass(frozen=True)
class Image:
    """An image by digest."""

    registry: str
    repository: str
    digest: str

    @classmethod
    def parse(cls, reference: str) -> "Image":
        """``[REGISTRY/]REPOSITORY[:TAG]@DIGEST``, as Docker reads it."""
        name, _, digest = reference.partition("@")
        first, slash, rest = name.partition("/")
        if not slash or not (first in LOCAL or "." in first or ":" in first):
            first, rest = HUB, name if slash else f"library/{name}"
        return cls(first, re.sub(r":[^/:]+$", "", rest), digest)

    @property
    def url(self) -> str:
        """Where its manifest is. As for Docker, a registry of this machine speaks HTTP without TLS."""
        scheme = "http" if self.registry.rsplit(":", 1)[0] in LOCAL else "https"
        return f"{scheme}://{self.registry}/v2/{self.repository}/manifests/{self.digest}"


def check(reference: str) -> None:
    """Asks for an image.

    Raises:
        InputError: it is not there.
        UnknownError: the registry does not answer, or not to us.
    """
    image = Image.parse(reference)
    if set(image.digest.removeprefix("sha256:")) == {"0"}:
        raise InputError(f"{reference}: is the example's placeholder; put in the digest that your push printed")
    status = _status(image)
    if status == 404:
        raise InputError(f"{reference}: is not pushed; push it, or correct images in the profile")
    if status != 200:
        raise UnknownError(f"{reference}: {image.registry} answers {status}")


def _status(image: Image) -> int:
    headers = {"Accept": ", ".join(KINDS)}
    try:
        with urllib3.PoolManager(timeout=WAIT, retries=False) as pool:
            answer = pool.request("HEAD", image.url, headers=headers)
            if answer.status == 401:
                allowed = _authorization(pool, image, answer.headers.get("WWW-Authenticate", ""))
                answer = pool.request("HEAD", image.url, headers={**headers, **allowed})
    except (HTTPError, ValueError) as error:
        said = " ".join(str(error).split())[:150]
        raise UnknownError(f"{image.registry}/{image.repository}: cannot be asked from here ({said})") from None
    return int(answer.status)


def _authorization(pool: Any, image: Image, asked: str) -> dict[str, str]:
    """What the registry wants: the login of Docker's own config, or the token that this, or nobody, gets for it."""
    login = _login(image.registry)
    scheme, _, rest = asked.partition(" ")
    wanted = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    if scheme.lower() != "bearer" or "realm" not in wanted:
        return login
    realm = wanted.pop("realm")
    answer = pool.request("GET", realm, fields=wanted, headers=login)
    found = answer.json() if answer.status == 200 else {}
    token = found.get("token") or found.get("access_token")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _login(registry: str) -> dict[str, str]:
    try:
        found = auth.load_config().resolve_authconfig(auth.INDEX_NAME if registry == HUB else registry)
    except errors.DockerException:  # a store of logins that is not installed, or fails
        found = None
    if not found or not found.get("username"):
        return {}
    return dict(urllib3.make_headers(basic_auth=f"{found['username']}:{found['password']}"))

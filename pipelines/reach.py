"""How a KFP server is reached: by its address, from a pod of its cluster, or through a port forwarded by kubectl."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rlhi.errors import InputError

SERVICE = "ml-pipeline"
PORT = 8888
POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")  # where KFP's own client looks for it too
FORWARDED = re.compile(r"Forwarding from (127\.0\.0\.1:\d+)")
PATIENCE = 30.0  # seconds for kubectl to forward


@dataclass(frozen=True)
class Address:
    """Where a KFP server is, and the file with the token that it wants; it is read anew for each request."""

    url: str
    token_file: Path | None = None

    @property
    def token(self) -> str | None:
        """The token as it is now.

        Raises:
            InputError: its file cannot be read.
        """
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", error)
            raise InputError(f"{self.token_file}: cannot be read ({said}); name the file with the token") from None


def address(host: str | None, token_file: Path | None, namespace: str) -> Address:
    """The server at ``host``; without one, that of the cluster whose pod this is.

    Raises:
        InputError: no address, none that can be, or a token that cannot be read.
    """
    if host is None:
        if "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise InputError("--host: no pod of a cluster; give the address of KFP, or --port-forward")
        host = f"http://{SERVICE}.{namespace}.svc.cluster.local:{PORT}"
        token_file = token_file or (POD_TOKEN if POD_TOKEN.exists() else None)
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise InputError("--host: not an address like http://localhost:8080; a token goes into --token-file")
    found = Address(host.rstrip("/"), token_file)
    _ = found.token
    return found


@contextmanager
def forwarded(namespace: str, context: str | None) -> Iterator[str]:
    """The address of a port of this machine that kubectl forwards to KFP for as long as the block lasts.

    Raises:
        InputError: there is no kubectl, or it does not get there.
    """
    if shutil.which("kubectl") is None:
        raise InputError("--port-forward: no kubectl on the PATH; install it, or give --host")
    argv = ["kubectl", *(["--context", context] if context else []), "-n", namespace]
    argv += ["port-forward", f"service/{SERVICE}", f":{PORT}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as kubectl:
        late = threading.Timer(PATIENCE, kubectl.kill)
        late.start()
        try:
            end = _local_end(kubectl)
            late.cancel()
            yield f"http://{end}"
        finally:
            late.cancel()
            kubectl.terminate()


def _local_end(kubectl: "subprocess.Popen[str]") -> str:
    if kubectl.stdout is None or kubectl.stderr is None:
        raise TypeError("kubectl without pipes")
    found = FORWARDED.search(kubectl.stdout.readline())
    if found is None:
        said = " ".join(kubectl.stderr.read().split()) or f"nothing in {PATIENCE:.0f} s"
        raise InputError(f"--port-forward: kubectl does not get there: {said}")
    return found[1]

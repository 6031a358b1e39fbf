"""A test double of a cluster's API: it has some Secrets and nothing else, which is what Helm's `lookup` asks for."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.helm import Object

KINDS = {
    "v1": ["Secret", "ConfigMap", "Service", "ServiceAccount", "Pod", "PersistentVolumeClaim"],
    "apps/v1": ["Deployment", "StatefulSet"],
    "policy/v1": ["PodDisruptionBudget"],
    "rbac.authorization.k8s.io/v1": ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"],
    "apiextensions.k8s.io/v1": ["CustomResourceDefinition"],
}
HELM = {"app.kubernetes.io/managed-by": "Helm"}


@contextmanager
def cluster(secrets: list[Object], folder: Path) -> Iterator[Path]:
    """A kubeconfig of a cluster that holds ``secrets`` of the release `rlhi` in the namespace `ml`."""
    held = {secret["metadata"]["name"]: _installed(secret) for secret in secrets}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found = _discovery(path) or held.get(path.removeprefix("/api/v1/namespaces/ml/secrets/"))
            data = json.dumps(found or _missing(path)).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield _kubeconfig(f"http://127.0.0.1:{server.server_address[1]}", folder)
        finally:
            server.shutdown()
            thread.join()


def _installed(secret: Object) -> Object:
    """As Helm left it in the cluster."""
    owner = {"meta.helm.sh/release-name": "rlhi", "meta.helm.sh/release-namespace": "ml"}
    return secret | {"metadata": {"name": secret["metadata"]["name"], "labels": HELM, "annotations": owner}}


def _discovery(path: str) -> Object | None:
    groups = [name for name in KINDS if "/" in name]
    if path == "/version":
        return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in groups]}
    name = path.removeprefix("/apis/").removeprefix("/api/")
    if name not in KINDS:
        return None
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": _resources(name)}


def _group(name: str) -> Object:
    version = {"groupVersion": name, "version": "v1"}
    return {"name": name.partition("/")[0], "versions": [version], "preferredVersion": version}


def _resources(group: str) -> list[Object]:
    return [
        {
            "name": f"{kind.lower()}s",
            "singularName": "",
            "kind": kind,
            "namespaced": not group.startswith("apiextensions") and not kind.startswith("Cluster"),
            "verbs": ["get", "list", "create"],
        }
        for kind in KINDS[group]
    ]


def _missing(path: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "NotFound",
        "code": 404,
        "message": path,
    }


def _kubeconfig(url: str, folder: Path) -> Path:
    here = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "ml"}}],
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": "none"}}],
    }
    path = folder / "kubeconfig.json"
    path.write_text(json.dumps(here))
    return path

"""The chart as Helm renders it, by the two Helms that users have."""

import fcntl
import functools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "rlhi"
GET_HELM = ROOT.parent / "shared" / "tools" / "get-helm"
HELMS = ("helm", "helm3")
REGISTRIES = {"github": "github.test", "quay": "quay.test", "google": "google.test"}
Object = dict[str, Any]

ON_PATH = Path(shutil.which("helm3") or "").parent

needs_helm = pytest.mark.skipif(
    not GET_HELM.exists() and not (ON_PATH / "helm").exists(),
    reason="needs ../shared, which is absent here, or helm and helm3 in one folder of the PATH",
)


@functools.cache
def tools() -> Path:
    """The folder with both Helms, fetched once for all tests of a machine."""
    if not GET_HELM.exists():
        return ON_PATH
    folder = Path(os.environ.get("RLHI_HELM") or Path(tempfile.gettempdir()) / "rlhi-helm")
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([GET_HELM, folder], check=True, capture_output=True)
    return folder


@functools.cache
def _template(helm: str, values: str, files: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    argv = [str(tools() / helm), "template", "rlhi", str(CHART), "--namespace", "ml", "--kube-version", "1.37.0"]
    given = [word for name in files for word in ("--values", str(CHART / name))]
    return subprocess.run([*argv, *given, "--values", "-"], input=values, capture_output=True, text=True)


@functools.cache
def _objects(helm: str, values: str, files: tuple[str, ...]) -> str:
    """The objects as JSON, which is read in no time."""
    done = _template(helm, values, files)
    assert done.returncode == 0, done.stderr
    return json.dumps([one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one])


def render(values: Object | None = None, *files: str, helm: str = "helm") -> list[Object]:
    """The objects of the chart with the files of values that lie in it, and ``values`` on top."""
    found: list[Object] = json.loads(_objects(helm, json.dumps({"registries": REGISTRIES} | (values or {})), files))
    return found


def refusal(values: Object, helm: str = "helm") -> str:
    """What Helm says when it refuses ``values``."""
    done = _template(helm, json.dumps({"registries": REGISTRIES} | values), ())
    assert done.returncode != 0, "it was not refused"
    return done.stderr

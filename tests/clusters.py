"""Profiles for tests, and what a compiled pipeline says of its pods."""

from pathlib import Path
from typing import Any

import yaml

from pipelines import graph, package, profiles
from pipelines.plan import Run
from pipelines.profiles import Profile

EXAMPLES = sorted(Path(__file__).parents[1].glob("profiles/*.yaml"))
DIGEST = "sha256:" + "1" * 64
PLAIN: dict[str, Any] = {
    "root": "s3://tests/root",
    "images": {"cpu": f"reg.example.com/cpu@{DIGEST}", "train": f"reg.example.com/train@{DIGEST}"},
    "cpu": {},
    "inference": {},
    "scoring": {},
    "training": {},
}


def written(folder: Path, **changed: Any) -> Path:
    """A file with the plainest profile, changed."""
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **changed}))
    return path


def profile(folder: Path, **changed: Any) -> Profile:
    return profiles.load(written(folder, **changed))


def compiled(run: Run, found: Profile, folder: Path, watermark: str = "") -> tuple[Any, Any]:
    """The pipeline, and its part for Kubernetes."""
    path = folder / "graph.yaml"
    graph.compile_to(run, path, package.cluster_of(found, watermark=watermark))
    spec, platform = yaml.load_all(path.read_bytes(), Loader=yaml.CSafeLoader)
    return spec, platform["platforms"]["kubernetes"]


def tasks_of(spec: Any) -> Any:
    """The tasks between those at the start and at the end."""
    return spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]


def container_of(spec: Any, task: str) -> Any:
    return spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]


def env_of(spec: Any, task: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container_of(spec, task).get("env", [])}


def pod_of(platform: Any, task: str) -> Any:
    return platform["deploymentSpec"]["executors"][f"exec-{task}"]


def secrets_of(pod: Any) -> dict[str, tuple[str, str, bool]]:
    """By variable: the Secret, its key, and whether it may be absent."""
    return {
        key["envVar"]: (each["secretName"], key["secretKey"], each["optional"])
        for each in pod.get("secretAsEnv", [])
        for key in each["keyToEnv"]
    }

"""In the project's own images, which `make images` builds: what they promise, and the demo, as in processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest

from rlhi import manifest

pytestmark = pytest.mark.images

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "examples" / "conversations.jsonl"
IMAGES = [os.environ.get(name, "") for name in ("RLHI_IMAGE_CPU", "RLHI_IMAGE_TRAIN")]
FEW = (  # the smallest part of the demo that trains and evaluates
    *("ingest.max_users=4", "ingest.seed=16", "ingest.eval_min_conversations=5", "ingest.held_out=2"),
    *("ingest.eval_share=0.4", "rewrite.max_prompts=8", "dpo.validation_share=0", "evaluate.max_turns=1"),
    *('evaluate.modes=["persona-guided"]', 'evaluate.opponents=["log"]', "evaluate.sampling.max_tokens=16"),
    *("persona.sampling.max_tokens=32", "reconstruct.sampling.max_tokens=8", "rewrite.sampling.max_tokens=32"),
    "rip.keep_cut=true",
)
# as strict as a restricted pod: any user, no rights, a root that cannot be written, one writable mount
STRICT: dict[str, Any] = {
    "user": "12345:12345",
    "read_only": True,
    "tmpfs": {"/tmp": "mode=1777"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}


@pytest.fixture
def engine() -> Iterator[Any]:
    with closing(docker.from_env()) as client:
        yield client


def run(runner: str, work: Path) -> Path:
    """Runs the demo's recipe as a user would, and gives the run's folder. The model has one place: adapters name it."""
    argv = [sys.executable, "-m", "pipelines", "run", "user-guided-rewrites", "--runner", runner]
    argv += ["--source", str(LOGS), "--work", str(work)]
    for setting in FEW:
        argv += ["--set", setting]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}  # other floats
    env = {**outside, "RLHI_SALT": "s", "RLHI_CACHE": str(work.parent / "cache")}
    done = subprocess.run(argv, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return (work / "latest").resolve()


def test_demo_in_the_images_makes_what_it_makes_in_processes(tmp_path: Path) -> None:
    made = []
    with ThreadPoolExecutor() as both:  # much of either is one thread that imports
        folders = list(both.map(lambda runner: run(runner, tmp_path / runner), ("docker", "process")))
    for folder in folders:
        found = sorted(folder.glob("*/*/manifest.json"))
        made.append({path.parent.parent.name: manifest.load(path.parent) for path in found})
        assert all(path.stat().st_uid == os.getuid() for path in found)
    here, there = made
    assert len(here) == 10
    assert {stage: each.digest for stage, each in here.items()} == {stage: each.digest for stage, each in there.items()}
    assert here["evaluate"].funnel == there["evaluate"].funnel


@pytest.mark.parametrize("image", IMAGES)
def test_image_says_what_it_is_and_runs_as_nobody_in_particular(image: str, engine: Any) -> None:
    config = engine.images.get(image).attrs["Config"]
    assert config["User"] == "65532:65532"
    labels = config["Labels"]
    assert {
        f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses", "version", "revision")
    } <= (labels.keys())
    written = engine.containers.run(image, ["rlhi", "--version"], remove=True, **STRICT)
    assert written.decode().startswith("rlhi ")


@pytest.mark.parametrize("image", IMAGES)
def test_stage_runs_with_a_root_that_cannot_be_written(image: str, tmp_path: Path, engine: Any) -> None:
    argv = ["rlhi", "ingest", "--source", "/logs.jsonl", "--conversations", "/tmp/out"]
    volumes = {str(LOGS): {"bind": "/logs.jsonl", "mode": "ro"}}
    written = engine.containers.run(
        image, argv, environment={"RLHI_SALT": "s"}, volumes=volumes, remove=True, stderr=True, **STRICT
    )
    assert b"ingest: 61 in," in written


def test_cpu_image_lints_without_kfp(tmp_path: Path, engine: Any) -> None:
    argv = [sys.executable, "-m", "pipelines", "compile", "no-filter", "-o", str(tmp_path / "graph.yaml")]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    volumes = {str(tmp_path / "graph.yaml"): {"bind": "/graph.yaml", "mode": "ro"}}
    argv = ["rlhi", "lint", "/graph.yaml", "--ignore", "image-digest"]
    assert engine.containers.run(IMAGES[0], argv, volumes=volumes, remove=True, **STRICT) == b"no findings\n"


def test_images_hold_only_what_their_stages_need(engine: Any) -> None:
    script = "import importlib.util as u; print([n for n in ('torch', 'trl', 'vllm', 'kfp', 'pip') if u.find_spec(n)])"
    argv = ["/opt/rlhi/bin/python", "-c", script]
    assert [engine.containers.run(image, argv, remove=True, **STRICT) for image in IMAGES] == [
        b"[]\n",
        b"['torch', 'trl']\n",
    ]

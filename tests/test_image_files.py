"""What the images are built from: the Dockerfiles and the locks."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted(ROOT.glob("images/*/Dockerfile"))
LOCKS = sorted(ROOT.glob("images/**/*.lock"))
OURS = [lock for lock in LOCKS if "vllm" not in lock.parts]


def locked(path: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


def pinned() -> dict[str, str]:
    return locked(ROOT / "constraints.txt")


def test_there_is_one_image_for_each_class_of_dependencies() -> None:
    assert [path.parent.name for path in DOCKERFILES] == ["cpu", "train", "vllm"]


def test_dockerfiles_pass_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, *DOCKERFILES], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_base_is_pinned_the_user_is_a_number_and_health_is_asked_for(path: Path) -> None:
    lines = path.read_text().splitlines()
    (base,) = [line for line in lines if line.startswith("ARG BASE=")]
    assert re.search(r"@sha256:[0-9a-f]{64}$", base)
    assert {line for line in lines if line.startswith("FROM ")} == {"FROM ${BASE} AS build", "FROM ${BASE}"}
    assert 'HEALTHCHECK CMD ["rlhi", "--version"]' in lines
    (user,) = [line for line in lines if line.startswith("USER ")]
    assert re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", user)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_package_of_a_lock_has_a_hash(path: Path) -> None:
    for requirement in re.split(r"\n(?=[\w.-]+==)", path.read_text())[1:]:
        assert "--hash=sha256:" in requirement, requirement


@pytest.mark.parametrize("path", OURS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_images_install_the_versions_that_the_gate_runs_with(path: Path) -> None:
    versions = pinned()
    differing = {
        name: (version, versions[name])
        for name, version in locked(path).items()
        if name in versions and version.split("+")[0] != versions[name]
    }
    assert differing == {}


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("cpu/requirements", ["cpu"]),
        ("train/cpu", ["train"]),
        ("train/cuda", ["train"]),
        ("vllm/requirements", ["vllm", "cpu"]),
    ],
)
def test_locks_hold_all_that_the_package_asks_for(lock: str, extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [each for extra in extras for each in project["optional-dependencies"][extra]]
    names = {re.split(r"[^\w.-]", each)[0].lower().replace("_", "-") for each in asked}
    assert names - set(locked(ROOT / "images" / f"{lock}.lock")) == set()


def test_vllm_and_trl_share_no_image_and_the_variant_for_cpus_holds_no_cuda() -> None:
    assert "trl" not in locked(ROOT / "images" / "vllm" / "requirements.lock")
    for variant in ("cpu", "cuda"):
        assert "vllm" not in locked(ROOT / "images" / "train" / f"{variant}.lock")
    assert [name for name in locked(ROOT / "images" / "train" / "cpu.lock") if name.startswith("nvidia")] == []

"""Runs containers where RLHI_TEST_IMAGE names an image with Python 3 that the engine has; skipped elsewhere."""

import io
import os
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest
from kfp import dsl
from rich.console import Console

from pipelines import containers, local
from rlhi.errors import InputError

IMAGE = os.environ.get("RLHI_TEST_IMAGE", "")
pytestmark = pytest.mark.skipif(
    not IMAGE, reason="needs an engine and RLHI_TEST_IMAGE; .ci/run has them from ../shared/tools/container-env"
)
SCRIPT = """
import json, os, pathlib, sys
source, way, given = sys.argv[1], sys.argv[2], json.loads(sys.argv[4])
made = given["outputs"]["artifacts"]["note"]["artifacts"][0]
folder = pathlib.Path(made["uri"])
folder.mkdir(parents=True)
try:
    open(source, "a")
    may = "writable"
except OSError:
    may = "read-only"
(folder / "note.txt").write_text(f"{open(source).read()} {may} {os.environ['RLHI_STORE']}")
pathlib.Path(os.environ["RLHI_STORE"]).mkdir()
if way == "removed":
    import time
    time.sleep(60)
if way == "fail":
    sys.exit("error: it went wrong")
if way == "done":
    pathlib.Path(given["outputs"]["outputFile"]).write_text(json.dumps({"artifacts": {"note": {"artifacts": [made]}}}))
"""


@dsl.container_component  # type: ignore[untyped-decorator]
def only(source: str, note: dsl.Output[dsl.Dataset], way: str) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["python3", "-c", SCRIPT],
        args=[source, way, "--executor-input", "{{$}}"],
    )


def one_task(way: str) -> Any:
    @dsl.pipeline(name="one-task")  # type: ignore[untyped-decorator]
    def pipeline(source: str) -> None:
        only(source=source, way=way)

    return pipeline


def containers_there() -> set[str]:
    with closing(docker.from_env()) as client:
        return {container.id for container in client.containers.list(all=True)}


def run(way: str, folder: Path) -> local.Progress:
    work, logs = folder / "work", folder / "logs"
    work.mkdir()
    logs.mkdir()
    (logs / "logs.jsonl").write_text("logs")
    progress = local.Progress(Console(file=io.StringIO()), work, total=1)
    place = local.Place(work, "docker", [logs], {"RLHI_STORE": str(work / "store")})
    local.run(one_task(way), {"source": str(logs / "logs.jsonl")}, place, progress)
    return progress


def test_container_reads_the_source_and_writes_only_to_the_work_folder(tmp_path: Path) -> None:
    progress = run("done", tmp_path)
    assert progress.failed is None
    note = progress.done[0].task.outputs["note"] / "note.txt"
    assert note.read_text() == f"logs read-only {tmp_path}/work/store"
    assert (tmp_path / "work" / "store").is_dir()


@pytest.mark.parametrize("way", ["fail", "silent"])
def test_container_that_fails_or_reports_nothing_ends_the_run(
    way: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = containers_there()
    assert run(way, tmp_path).failed == "only"
    assert ("error: it went wrong" in capfd.readouterr().err) == (way == "fail")
    assert containers_there() <= before


def test_container_that_is_removed_while_it_runs_ends_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = containers_there()
    written = tmp_path / "work" / "store"

    def remove() -> None:
        while not written.is_dir():
            time.sleep(0.1)
        with closing(docker.from_env()) as client:
            for each in containers_there() - before:
                client.containers.get(each).remove(force=True)

    remover = threading.Thread(target=remove)
    remover.start()
    assert run("removed", tmp_path).failed == "only"
    remover.join()
    assert "error: the container is lost" in capfd.readouterr().err
    assert containers_there() <= before


def test_missing_image_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"rlhi-cpu:none: no such image here; .*RLHI_IMAGE_CPU"):
        containers.check_images(["rlhi-cpu:none"])

import io
import json
import logging
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from kfp.local import config, logging_utils, subprocess_task_handler
from rich.console import Console

from pipelines import adapter, local, summary
from pipelines.adapter import Task
from rlhi.manifest import FunnelRow, Manifest

SCRIPT = """
import json, os, pathlib, sys
read, way, given = sys.argv[1], sys.argv[2], json.loads(sys.argv[4])
made = given["outputs"]["artifacts"]["note"]["artifacts"][0]
folder = pathlib.Path(made["uri"])
folder.mkdir(parents=True)
before = pathlib.Path(read, "note.txt").read_text() if os.path.isdir(read) else read
(folder / "note.txt").write_text(before + "+" + os.environ["RLHI_STORE"])
if way == "fail":
    sys.exit("error: it went wrong")
if way == "done":
    pathlib.Path(given["outputs"]["outputFile"]).write_text(json.dumps({"artifacts": {"note": {"artifacts": [made]}}}))
"""


@dsl.container_component  # type: ignore[untyped-decorator]
def first(source: str, note: dsl.Output[dsl.Dataset], way: str) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(
        image="no-such-image",
        command=[sys.executable, "-c", SCRIPT],
        args=[source, way, "--executor-input", "{{$}}"],
    )


@dsl.container_component  # type: ignore[untyped-decorator]
def second(read: dsl.Input[dsl.Dataset], note: dsl.Output[dsl.Dataset], way: str) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(
        image="no-such-image",
        command=[sys.executable, "-c", SCRIPT],
        args=[read.path, way, "--executor-input", "{{$}}"],
    )


def two_tasks(way: str) -> Any:
    @dsl.pipeline(name="two-tasks")  # type: ignore[untyped-decorator]
    def pipeline(source: str) -> None:
        second(read=first(source=source, way=way).outputs["note"], way="done")

    return pipeline


def run(way: str, work: Path) -> tuple[local.Progress, str]:
    told = io.StringIO()
    progress = local.Progress(Console(file=told, width=100), work, total=2)
    place = local.Place(work, env={"RLHI_STORE": "kept"})
    local.run(two_tasks(way), {"source": "logs"}, place, progress)
    return progress, told.getvalue()


def described(created: datetime, metrics: dict[str, float] | None = None) -> Manifest:
    return Manifest(
        stage="evaluate",
        record="Verdict",
        digest="d",
        rows_in=5,
        kept=3,
        dropped={"turn_cap": 2},
        funnel=[FunnelRow("evaluate", 5, 3, {"turn_cap": 2})],
        config={},
        config_hash="c",
        inputs={},
        prompt_hashes={},
        code_version="v",
        created_at=created.isoformat(timespec="seconds"),
        seconds=1.0,
        metrics=metrics or {},
    )


def follow(work: Path, created: datetime, metrics: dict[str, float] | None = None) -> tuple[local.Progress, str]:
    """Follows one task whose output says that it was made at ``created``."""
    work.mkdir(exist_ok=True)
    folder = work / "runs" / "one" / "evaluate"
    task = Task("evaluate", folder, {"verdicts": folder / "verdicts"}, folder / "executor_output.json")

    def execute() -> int:
        task.outputs["verdicts"].mkdir(parents=True)
        described(created, metrics).save(task.outputs["verdicts"])
        (task.outputs["verdicts"] / "report.html").write_text("")
        (task.outputs["verdicts"] / "analysis.html").write_text("")
        task.report.write_text("{}")
        return 0

    told = io.StringIO()
    progress = local.Progress(Console(file=told, width=100), work, total=1)
    assert progress.follow(task, execute)
    return progress, told.getvalue()


def test_container_components_run_as_processes_with_their_inputs_and_environment(tmp_path: Path) -> None:
    progress, told = run("done", tmp_path)
    assert progress.failed is None
    assert [one.task.stage for one in progress.done] == ["first", "second"]
    assert (progress.done[1].task.outputs["note"] / "note.txt").read_text() == "logs+kept+kept"
    assert [line.split()[:2] for line in told.splitlines()[::2]] == [["[1/2]", "first"], ["[2/2]", "second"]]


def test_latest_points_at_the_newest_run(tmp_path: Path) -> None:
    run("done", tmp_path)
    progress, _ = run("done", tmp_path)
    assert (tmp_path / "latest").resolve() == progress.done[0].task.folder.parent.resolve()


@pytest.mark.parametrize("way", ["fail", "silent"])
def test_task_that_fails_or_reports_no_output_ends_the_run(
    way: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    progress, _ = run(way, tmp_path)
    out, err = capfd.readouterr()
    assert progress.failed == "first"
    assert progress.done == []
    assert out == ""
    assert err == ("error: it went wrong\n" if way == "fail" else "")


def test_kfp_says_nothing_and_is_as_before_afterwards(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def parts() -> list[Any]:
        handler = subprocess_task_handler.SubprocessTaskHandler
        quiet = [logging_utils.local_logger_context, logging_utils.indented_print, logging_utils.print_horizontal_line]
        root = logging.getLogger()
        return [handler, *quiet, config.LocalExecutionConfig.instance, list(root.handlers), root.level]

    before = parts()
    run("done", tmp_path)
    assert parts() == before
    assert capfd.readouterr() == ("", "")


def test_stage_command_is_run_by_this_python() -> None:
    assert adapter.here(["rlhi", "rip", "--x"]) == [sys.executable, "-m", "rlhi.cli", "rip", "--x"]
    assert adapter.here(["sh", "rlhi"]) == ["sh", "rlhi"]


def test_interrupt_ends_the_process_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "PATIENCE", 0.1)
    mark = tmp_path / "pid"
    script = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def interrupt() -> None:
        while not mark.exists() or not mark.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        adapter.run_process([sys.executable, "-c", script], dict(os.environ))
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_output_made_before_the_task_began_is_told_as_reused(tmp_path: Path) -> None:
    fresh, told_fresh = follow(tmp_path / "a", datetime.now(UTC))
    reused, told_reused = follow(tmp_path / "b", datetime.now(UTC) - timedelta(hours=1))
    assert (fresh.done[0].reused, reused.done[0].reused) == (False, True)
    assert "done in 0 s, 3 of 5 rows kept" in told_fresh
    assert "reused, 3 of 5 rows kept" in told_reused


def test_summary_shows_the_funnel_the_win_rates_and_the_report(tmp_path: Path) -> None:
    name = "win_rate/log/usereval/persona-guided"
    metrics = {name: 0.625, f"{name}/low": 0.5, f"{name}/high": 0.75, "judged": 3.0}
    progress, _ = follow(tmp_path, datetime.now(UTC), metrics)
    told = io.StringIO()
    summary.tell(Console(file=told, width=100), progress.done, tmp_path, "sqlite:////work/mlflow.db")
    text = told.getvalue()
    assert "turn_cap 2" in text
    assert ["log", "usereval", "persona-guided", "62.5", "%", "50.0", "%", "to", "75.0", "%"] in [
        line.replace("│", " ").split() for line in text.splitlines()
    ]
    assert str(tmp_path / "runs/one/evaluate/verdicts/report.html") in text
    assert str(tmp_path / "runs/one/evaluate/verdicts/analysis.html") in text
    assert "mlflow ui --backend-store-uri sqlite:////work/mlflow.db" in text


def test_summary_shows_label_shares_beside_the_papers() -> None:
    told = io.StringIO()
    table = summary.label_shares({"share/new": 0.25, "share/unreadable_label": 0.75, "meaningful_feedback/users": 3.0})
    Console(file=told, width=100).print(table)
    lines = [line.replace("│", " ").split() for line in told.getvalue().splitlines()]
    assert ["new", "25.0", "%", "40.40", "%"] in lines
    assert ["unreadable_label", "75.0", "%"] in lines
    assert summary.label_shares({"meaningful_feedback/users": 3.0}) is None


def test_images_of_a_graph() -> None:
    assert local.images(two_tasks("done")) == {"no-such-image"}


def test_task_knows_its_outputs_and_where_to_report(tmp_path: Path) -> None:
    given = {
        "outputs": {"artifacts": {"note": {"artifacts": [{"uri": "/r/first/note"}]}}, "outputFile": "/r/first/o.json"}
    }
    task = Task.of(["python", "--executor-input", json.dumps(given)])
    assert (task.stage, task.outputs, task.report) == (
        "first",
        {"note": Path("/r/first/note")},
        Path("/r/first/o.json"),
    )


def test_page_is_no_output_of_its_own() -> None:
    page = {"uri": "/r/evaluate/report", "type": {"schemaTitle": "system.HTML"}}
    rows = {"uri": "/r/evaluate/verdicts", "type": {"schemaTitle": "system.Dataset"}}
    artifacts = {"report": {"artifacts": [page]}, "verdicts": {"artifacts": [rows]}}
    given = {"outputs": {"artifacts": artifacts, "outputFile": "/r/evaluate/o.json"}}
    task = Task.of(["python", "--executor-input", json.dumps(given)])
    assert task.outputs == {"verdicts": Path("/r/evaluate/verdicts")}

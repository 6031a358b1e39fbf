"""Tracking, against a real MLflow store: SQLite in a temporary folder, and once a server."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhi import tracking
from rlhi.errors import InputError
from rlhi.manifest import FunnelRow, Manifest
from tests import mlflow_server

# mlflow 3.17 uses what SQLAlchemy 2.1 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

RIP = Manifest(
    stage="rip",
    record="Pair",
    digest="5f3c",
    rows_in=10,
    kept=6,
    dropped={"tie": 3, "equal_answers": 1},
    funnel=[FunnelRow("reward", 12, 10, {"unscored": 2}), FunnelRow("rip", 10, 6, {"tie": 3, "equal_answers": 1})],
    config={"seed": 0, "sampling": {"temperature": 0.6, "top_p": None}, "axes": ["usereval"], "thresholds": "absolute"},
    config_hash="c0ff",
    inputs={"scored": "aaaa"},
    prompt_hashes={"prompt.j2": "bbbb"},
    code_version="0.1.0+1234",
    created_at="2026-01-02T03:04:05+00:00",
    seconds=90.0,
    metrics={"gap (mean)": 0.25},
    notes={"gap": "Absolute thresholds belong to one reward model."},
)
DPO = replace(
    RIP, stage="dpo", dropped={}, rows_in=6, kept=6, funnel=[FunnelRow("dpo", 6, 6, {})], metrics={"loss": 0.69}
)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No run of whoever started the tests, and a current folder that must stay clean."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "RLHI_PARENT_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def client(uri: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pairs"
    made.mkdir()
    RIP.save(made)
    return made


def runs(client: Any) -> list[Any]:
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def only_child(client: Any, parent: str) -> Any:
    (run,) = [run for run in runs(client) if run.data.tags.get("mlflow.parentRunId") == parent]
    return run


def log_nested(client: Any, monkeypatch: pytest.MonkeyPatch, described: Manifest, folder: Path) -> Any:
    """The run of ``described`` inside a new parent run."""
    parent = tracking.start_pipeline("demo", {}, client.tracking_uri)
    monkeypatch.setenv("RLHI_PARENT_RUN_ID", parent)
    tracking.log_stage(described, folder, reused=False)
    return only_child(client, parent)


def artifact(client: Any, run: Any, name: str, into: Path) -> str:
    return Path(client.download_artifacts(run.info.run_id, name, str(into))).read_text()


def test_without_a_tracking_uri_nothing_is_tracked(folder: Path) -> None:
    tracking.log_stage(RIP, folder, reused=False)

    assert not any(Path.cwd().iterdir())


def test_importing_tracking_does_not_import_mlflow() -> None:
    code = "import sys, rlhi.tracking; sys.exit('mlflow' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_nested_run_carries_counts_settings_and_lineage(
    client: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = log_nested(client, monkeypatch, RIP, folder)

    assert run.info.run_name == "rip"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time >= 90_000
    assert run.data.params == {
        "seed": "0",
        "sampling.temperature": "0.6",
        "sampling.top_p": "null",
        "axes": '["usereval"]',
        "thresholds": "absolute",
    }
    assert run.data.metrics == {
        "rows_in": 10,
        "kept": 6,
        "dropped": 4,
        "dropped.tie": 3,
        "dropped.equal_answers": 1,
        "seconds": 90,
        "gap _mean_": 0.25,
    }
    tags = run.data.tags
    assert (tags["stage"], tags["reused"], tags["digest"], tags["config_hash"]) == ("rip", "false", "5f3c", "c0ff")
    assert (tags["input.scored"], tags["prompt.prompt.j2"], tags["code_version"]) == ("aaaa", "bbbb", "0.1.0+1234")
    used = {(each.tags[0].value, each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs}
    assert used == {("input", "scored", "aaaa"), ("output", "rip", "5f3c")}


def test_pictures_pages_and_the_manifest_become_artifacts(
    client: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gaps.png", "report.html", "summary.md", "part-00000.parquet"):
        (folder / name).write_text(name)
    (folder / "dropped").mkdir()
    (folder / "dropped" / "inner.png").write_text("not at the top")

    run = log_nested(client, monkeypatch, RIP, folder)

    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert names == {"manifest.json", "funnel.json", "gaps.png", "report.html", "summary.md"}


def test_the_funnel_is_a_table_and_a_note(
    client: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = log_nested(client, monkeypatch, RIP, folder)

    table = json.loads(artifact(client, run, "funnel.json", tmp_path))
    assert dict(zip(table["columns"], table["data"][1], strict=True)) == {
        "stage": "rip",
        "rows_in": 10,
        "kept": 6,
        "kept %": 60,
        "dropped": 4,
        "reasons": "tie 3, equal_answers 1",
    }
    note = run.data.tags["mlflow.note.content"]
    assert re.search(r"rip\W.*\b10\W.*\b6\W.*\b60\W.*\b4\W.*tie 3, equal_answers 1", note)
    assert RIP.notes["gap"] in note


def test_history_becomes_a_curve(client: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = [{"step": 1, "loss": 0.7, "grad_norm": None}, {"step": 2, "loss": 0.5, "grad_norm": 1.0}]
    (folder / "history.json").write_text(json.dumps(history))

    run = log_nested(client, monkeypatch, DPO, folder)

    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.7), (2, 0.5)]
    assert run.data.metrics["train/grad_norm"] == 1.0
    assert run.data.metrics["loss"] == 0.69


def test_values_that_mlflow_refuses_are_made_to_fit(client: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = replace(RIP, config={"script": "x" * 9000}, metrics={"/a//b:c%": 1.0}, notes={"long": "y" * 9000})

    run = log_nested(client, monkeypatch, odd, folder)

    assert set(run.data.params["script"]) == {"x"}
    assert run.data.metrics["a/b_c_"] == 1.0


def test_the_run_that_kfp_made_is_filled_and_left_open(
    client: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = client.create_run(client.create_experiment("of KFP")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    monkeypatch.setenv("RLHI_PARENT_RUN_ID", "not looked at")

    tracking.log_stage(RIP, folder, reused=True)

    run = client.get_run(given)
    assert run.info.status == "RUNNING"
    assert run.data.metrics["kept"] == 6
    assert run.data.tags["reused"] == "true"


def test_without_a_parent_a_stage_has_a_run_of_its_own(
    client: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "alone")

    tracking.log_stage(RIP, folder, reused=False)

    (run,) = client.search_runs([client.get_experiment_by_name("alone").experiment_id])
    assert run.info.run_name == "rip"
    assert "mlflow.parentRunId" not in run.data.tags


def test_a_shard_is_a_run_that_says_which(client: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = log_nested(client, monkeypatch, replace(RIP, stage="classify", shard="2/4", funnel=[], dropped={}), folder)
    assert run.info.run_name == "classify shard 2 of 4"


def test_two_pipeline_runs_show_the_field_in_which_they_differ(client: Any, uri: str) -> None:
    finished = []
    for thresholds in ("absolute", "quantile"):
        run_id = tracking.start_pipeline("demo", {"source": "logs.jsonl"}, uri)
        tracking.finish_pipeline(run_id, [replace(RIP, config={**RIP.config, "thresholds": thresholds}), DPO], uri)
        finished.append(client.get_run(run_id).data.params)

    one, other = finished
    assert {key for key in one | other if one.get(key) != other.get(key)} == {"rip.thresholds"}
    assert one["source"] == "logs.jsonl"
    assert one["rip.sampling.temperature"] == "0.6"


def test_what_qualifies_a_figure_is_with_its_stage_alone(client: Any, uri: str) -> None:
    rate = "win_rate/log/usereval/persona-guided"
    measured = replace(DPO, metrics={rate: 0.5, f"{rate}/low": 0.4, f"{rate}/initial/turns": 8, "tokens/prompt": 9})
    run_id = tracking.start_pipeline("demo", {}, uri)

    tracking.finish_pipeline(run_id, [measured], uri)

    assert client.get_run(run_id).data.metrics == {"kept.dpo": 6, f"dpo.{rate}": 0.5}


def test_a_parent_run_holds_the_headlines(client: Any, uri: str, tmp_path: Path) -> None:
    run_id = tracking.start_pipeline("demo", {}, uri)

    tracking.finish_pipeline(run_id, [RIP, DPO], uri)

    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("demo ")
    assert run.data.tags["recipe"] == "demo"
    assert run.data.metrics == {"kept.rip": 6, "kept.dpo": 6, "dpo.loss": 0.69}
    assert "dpo" in run.data.tags["mlflow.note.content"]
    stages = [row[0] for row in json.loads(artifact(client, run, "funnel.json", tmp_path))["data"]]
    assert stages == ["rip", "dpo"]


def test_a_parent_run_names_the_data_from_outside(client: Any, uri: str) -> None:
    run_id = tracking.start_pipeline("demo", {}, uri)

    tracking.finish_pipeline(run_id, [RIP, replace(DPO, inputs={"pairs": RIP.digest})], uri)

    (used,) = client.get_run(run_id).inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("scored", "aaaa")


def test_rounds_of_one_stage_are_steps_and_show_what_changed(client: Any, uri: str) -> None:
    run_id = tracking.start_pipeline("online", {}, uri)
    second = replace(DPO, config={**DPO.config, "seed": 1}, metrics={"loss": 0.5})

    tracking.finish_pipeline(run_id, [DPO, second], uri)

    params = client.get_run(run_id).data.params
    assert {key: value for key, value in params.items() if "seed" in key} == {"dpo.seed": "0", "dpo.2.seed": "1"}
    curve = client.get_metric_history(run_id, "dpo.loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.69), (2, 0.5)]


def test_a_failed_pipeline_is_marked_and_keeps_what_was_done(client: Any, uri: str) -> None:
    run_id = tracking.start_pipeline("demo", {}, uri)

    tracking.finish_pipeline(run_id, [RIP], uri, failed=True)

    run = client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.metrics == {"kept.rip": 6}


def test_artifacts_lie_beside_the_database(client: Any, uri: str, folder: Path) -> None:
    tracking.finish_pipeline(tracking.start_pipeline("demo", {}, uri), [RIP], uri)
    tracking.log_stage(RIP, folder, reused=False)

    beside = Path(uri.removeprefix("sqlite:///")).with_name("mlflow-artifacts")
    assert list(beside.rglob("funnel.json"))
    assert not any(Path.cwd().iterdir())


@pytest.fixture
def closed_port() -> int:
    return mlflow_server.closed_port()


def test_a_server_that_is_away_costs_one_warning(
    closed_port: int, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{closed_port}")

    tracking.log_stage(RIP, folder, reused=False)

    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"http://127.0.0.1:{closed_port}" in warning.getMessage()
    assert "secret" not in warning.getMessage()


def test_a_pipeline_does_not_start_without_its_server(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(InputError, match=f"http://127.0.0.1:{closed_port}: MLflow cannot track there"):
        tracking.start_pipeline("demo", {}, f"http://127.0.0.1:{closed_port}")


@pytest.fixture
def server(tmp_path: Path, uri: str) -> Iterator[str]:
    with mlflow_server.mlflow_server(tmp_path, uri) as address:
        yield address


@pytest.mark.slow
def test_a_real_server_takes_a_whole_pipeline_run(
    server: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "served")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server)
    run = log_nested(client, monkeypatch, RIP, folder)
    tracking.finish_pipeline(run.data.tags["mlflow.parentRunId"], [RIP], server)

    assert json.loads(artifact(client, run, "manifest.json", tmp_path))["digest"] == "5f3c"
    assert client.get_run(run.data.tags["mlflow.parentRunId"]).data.metrics == {"kept.rip": 6}

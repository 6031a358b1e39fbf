"""An experiment in MLflow, against a real store: the whole, its arms, and where the runs of stages are nested."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines import erasure
from rlhi import study, tracking
from rlhi.manifest import FunnelRow, Manifest
from tests.test_tracking import DPO, RIP

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # mlflow's own

ARMS: Mapping[str, Mapping[str, str]] = {"filtered": {}, "no-filter": {"rip.rewrite.thresholds": "off"}}
EVALUATE = replace(
    RIP,
    stage="evaluate",
    metrics={"win_rate/log/usereval/context-only": 0.5},
    funnel=[FunnelRow("evaluate", 10, 6, {})],
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def uri(work: Path) -> str:
    return f"sqlite:///{work}/mlflow.db"


@pytest.fixture
def client(uri: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def started(uri: str, name: str) -> study.Study:
    return study.start(name, "Two arms.", ARMS, {"source": "logs.jsonl"}, uri)


def page(folder: Path) -> Path:
    """An output of the comparison."""
    folder.mkdir()
    (folder / "report.html").write_text("<p>side by side</p>")
    (folder / "arms.png").write_bytes(b"picture")
    (folder / "part-00000.parquet").write_bytes(b"rows")
    replace(RIP, stage="comparison", digest="c0de").save(folder)
    return folder


def nested_in(client: Any, parent: str) -> list[str]:
    place = client.get_run(parent).info.experiment_id
    runs = client.search_runs([place], filter_string=f"tags.mlflow.parentRunId = '{parent}'")
    return sorted(run.info.run_name for run in runs)


def log(described: Manifest, folder: Path, env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs a stage as its process would, with ``env``."""
    with monkeypatch.context() as only:
        for name, value in env.items():
            only.setenv(name, value)
        tracking.log_stage(described, folder, reused=False)


def test_experiment_is_one_of_its_name_with_a_run_for_the_whole_and_one_for_each_arm(client: Any, uri: str) -> None:
    found = started(uri, "pair")
    whole, *arms = [client.get_run(run) for run in (found.run, *found.arms.values())]
    assert client.get_experiment(whole.info.experiment_id).name == "pair"
    tags = client.get_experiment(whole.info.experiment_id).tags
    assert tags["mlflow.note.content"] == "Two arms."
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert [arm.info.run_name for arm in arms] == ["filtered", "no-filter"]
    assert [arm.data.tags["study"] for arm in arms] == [found.run, found.run]
    assert not any("mlflow.parentRunId" in arm.data.tags for arm in arms)  # MLflow draws no charts of what is nested
    assert whole.data.params == arms[0].data.params == {"source": "logs.jsonl"}
    assert [arm.data.tags["arm"] for arm in arms] == ["filtered", "no-filter"]


def test_tags_of_an_arm_say_what_differs_from_the_first(client: Any, uri: str) -> None:
    found = started(uri, "tagged")
    tags = [client.get_run(run).data.tags for run in found.arms.values()]
    told = [{name: value for name, value in own.items() if name.startswith("differs.")} for own in tags]
    assert told == [{}, {"differs.rip.rewrite.thresholds": "off"}]


def test_stage_is_nested_in_its_arm_and_in_the_whole_where_it_is_shared(
    client: Any, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = started(uri, "nested")
    (tmp_path / "pairs").mkdir()
    log(RIP, tmp_path / "pairs", {**found.env, "RLHI_ARM": "no-filter"}, monkeypatch)
    log(replace(RIP, stage="reward"), tmp_path / "pairs", found.env, monkeypatch)
    assert nested_in(client, found.arms["no-filter"]) == ["rip"]
    assert nested_in(client, found.arms["filtered"]) == []
    assert nested_in(client, found.run) == ["reward"]


def test_run_of_a_stage_on_a_cluster_says_its_arm(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = client.create_run(client.create_experiment("made by KFP")).info.run_id
    log(RIP, tmp_path, {"MLFLOW_RUN_ID": given, "RLHI_ARM": "no-filter"}, monkeypatch)
    assert client.get_run(given).data.tags["arm"] == "no-filter"


def test_arms_have_the_same_metrics_and_differ_in_one_setting(client: Any, uri: str) -> None:
    found = started(uri, "measured")
    for arm, thresholds in (("filtered", "quantile"), ("no-filter", "off")):
        own = replace(RIP, config={**RIP.config, "thresholds": thresholds})
        tracking.finish_pipeline(found.arms[arm], [own, DPO, EVALUATE], uri)
    one, other = (client.get_run(run) for run in found.arms.values())
    assert set(one.data.metrics) == set(other.data.metrics)
    assert {"dpo.loss", "kept.rip", "evaluate.win_rate/log/usereval/context-only"} <= set(one.data.metrics)
    params = one.data.params, other.data.params
    assert {key for key in params[0] if params[0][key] != params[1][key]} == {"rip.thresholds"}
    assert one.info.status == "FINISHED"


def test_page_is_an_artifact_of_the_whole_and_linked_in_its_description(client: Any, uri: str, tmp_path: Path) -> None:
    found = started(uri, "paged")
    study.finish(found, page(tmp_path / "page"), "arm | pairs", uri, failed=False)
    run = client.get_run(found.run)
    held = {file.path for file in client.list_artifacts(found.run, "comparison")}
    assert held == {"comparison/report.html", "comparison/arms.png", "comparison/manifest.json"}
    link = f"(#/experiments/{run.info.experiment_id}/runs/{found.run}/artifacts/comparison/report.html)"
    first, *others = run.data.tags["mlflow.note.content"].splitlines()
    assert link in first  # MLflow folds what comes after a few lines
    assert "arm | pairs" in others
    assert run.info.status == "FINISHED"


def test_experiment_that_stops_is_marked_and_has_no_page(client: Any, uri: str) -> None:
    found = started(uri, "stopped")
    tracking.finish_pipeline(found.arms["no-filter"], [RIP], uri, failed=True)
    study.finish(found, None, "arm | pairs", uri, failed=True)
    assert {client.get_run(run).info.status for run in (found.run, found.arms["no-filter"])} == {"FAILED"}
    assert client.list_artifacts(found.run) == []


def test_copies_of_the_page_are_forgotten_with_the_page(work: Path, uri: str) -> None:
    (work / "runs").mkdir()
    output = page(work / "runs" / "comparison")
    found = started(uri, "erased")
    study.finish(found, output, "", uri, failed=False)
    copy = work / "mlflow-artifacts" / found.run / "artifacts" / "comparison"
    assert json.loads((copy / "manifest.json").read_text())["digest"] == "c0de"
    erasure.remove(work, [output])
    assert not copy.exists()
    assert not output.exists()

"""What MLflow missed while it was away arrives when it is back, once, and in its own run."""

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhi import curves, deliver, tracking, undelivered
from rlhi.manifest import Manifest
from rlhi.outcome import task as outcome
from tests.test_tracking import DPO, RIP, artifact, closed_port, runs

__all__ = ["closed_port"]
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
LOG = [{"step": float(step), "loss": 1 / step} for step in range(1, 5)]


class Server:
    """MLflow, which can be away."""

    def __init__(self, client: Any, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client = client
        self._away, self._monkeypatch = f"http://127.0.0.1:{port}", monkeypatch
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        self.back()

    def back(self) -> None:
        self._monkeypatch.setenv("MLFLOW_TRACKING_URI", self.client.tracking_uri)

    def leave(self) -> None:
        self._monkeypatch.setenv("MLFLOW_TRACKING_URI", self._away)

    def runs(self) -> dict[str, Any]:
        found = {run.info.run_name: run for run in runs(self.client)}
        assert len(found) == len(runs(self.client))
        return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


@pytest.fixture
def server(
    store: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Server]:
    for name in ("MLFLOW_RUN_ID", "RLHI_PARENT_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    yield Server(store, closed_port, monkeypatch)
    for experiment in store.search_experiments():
        if experiment.name != "Default":
            store.delete_experiment(experiment.experiment_id)


def made(folder: Path, described: Manifest) -> Path:
    folder.mkdir()
    described.save(folder)
    return folder


def kept(place: Path) -> list[str]:
    return sorted(path.name for path in place.glob("*.json"))


def test_training_that_mlflow_missed_is_told_by_the_next_stage(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tracking.start_pipeline("demo", {}, server.client.tracking_uri)
    monkeypatch.setenv("RLHI_PARENT_RUN_ID", parent)
    server.leave()
    folder = made(tmp_path / "model", DPO)
    curves.save(folder, LOG)
    tracking.log_stage(DPO, folder, reused=False)
    assert len(kept(tmp_path / "undelivered")) == 1
    server.back()
    tracking.log_stage(RIP, made(tmp_path / "pairs", RIP), reused=False)
    assert not kept(tmp_path / "undelivered")
    run = server.runs()["dpo"]
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert (run.info.status, run.data.metrics["loss"]) == ("FINISHED", 0.69)
    history = server.client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
        (4, 0.25),
    ]
    assert run.info.end_time - run.info.start_time == 90_000
    assert artifact(server.client, run, "manifest.json", tmp_path / "got") == (folder / "manifest.json").read_text()


def test_end_of_a_pipeline_waits_too_and_everything_is_told_by_hand(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri, place = server.client.tracking_uri, tmp_path / "undelivered"
    parent = tracking.start_pipeline("demo", {}, uri)
    server.leave()
    away = server._away
    tracking.log_stage(RIP, made(tmp_path / "pairs", RIP), reused=False)
    tracking.finish_pipeline(parent, [RIP, DPO], away, place=str(place))
    assert deliver.main([str(place), "--tracking-uri", away]) == 1
    assert "0 delivered, 2 left" in capsys.readouterr().err
    assert deliver.main([str(place), "--tracking-uri", uri]) == 0
    assert "2 delivered, 0 left" in capsys.readouterr().err
    run = server.client.get_run(parent)
    assert (run.info.status, run.data.metrics["dpo.loss"], run.data.metrics["kept.rip"]) == ("FINISHED", 0.69, 6)
    assert "rip" in server.runs()
    assert deliver.main([str(place), "--tracking-uri", uri]) == 0
    assert len(server.runs()) == 2


def test_run_that_was_open_when_mlflow_went_away_is_the_one_that_is_filled(server: Server, tmp_path: Path) -> None:
    run_id = tracking.start_pipeline("opened while it ran", {}, server.client.tracking_uri)
    server.leave()
    tracking.log_stage(RIP, made(tmp_path / "pairs", RIP), reused=False, run_id=run_id)
    tracking.deliver(str(tmp_path / "undelivered"), server.client.tracking_uri)
    (run,) = runs(server.client)
    assert (run.info.run_id, run.info.status, run.data.metrics["kept"]) == (run_id, "FINISHED", 6)


def test_run_that_kfp_made_is_filled_later_and_not_ended(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = tracking.start_pipeline("of KFP", {}, server.client.tracking_uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    server.leave()
    tracking.log_stage(RIP, made(tmp_path / "pairs", RIP), reused=False)
    monkeypatch.delenv("MLFLOW_RUN_ID")  # another task tells
    tracking.deliver(str(tmp_path / "undelivered"), server.client.tracking_uri)
    (run,) = runs(server.client)
    assert (run.info.run_id, run.info.status, run.data.metrics["kept"]) == (run_id, "RUNNING", 6)


def test_run_that_is_not_taken_keeps_no_other_from_being_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RLHI_PARENT_RUN_ID", "0" * 32)  # deleted since
    server.leave()
    tracking.log_stage(DPO, made(tmp_path / "model", DPO), reused=False)
    monkeypatch.delenv("RLHI_PARENT_RUN_ID")
    tracking.log_stage(RIP, made(tmp_path / "pairs", RIP), reused=False)
    assert tracking.deliver(str(tmp_path / "undelivered"), server.client.tracking_uri) == (1, 1)
    assert set(server.runs()) == {"rip"}
    (left,) = kept(tmp_path / "undelivered")
    assert f"undelivered/{left} waits for it" in caplog.text


def test_text_that_is_no_report_is_named(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert deliver.main([str(tmp_path), "--tracking-uri", server.client.tracking_uri]) == 2
    assert f"{tmp_path}/x.json: is nothing that MLflow can be told" in capsys.readouterr().err


def test_without_mlflow_there_is_nobody_to_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert deliver.main([str(tmp_path)]) == 2
    assert "--tracking-uri: is missing" in capsys.readouterr().err


def test_place_that_cannot_be_written_costs_no_output(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RLHI_UNDELIVERED", str(tmp_path / "file" / "x"))
    server.leave()
    tracking.log_stage(RIP, made(tmp_path / "pairs", RIP), reused=False)
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "set RLHI_UNDELIVERED to another folder" in warning.getMessage()


def test_pods_keep_it_on_s3_and_the_last_task_tells(
    server: Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLHI_UNDELIVERED", f"{bucket}/undelivered")
    server.leave()
    for described in (RIP, replace(RIP, shard="2/4")):
        folder = made(tmp_path / "out", described)
        tracking.log_stage(described, folder, reused=False)
        shutil.rmtree(folder)  # the pod is gone
    config = json.dumps({"place": f"{bucket}/outcomes", "recipe": "demo"})
    assert outcome.main(["--status", '{"state": "SUCCEEDED"}', "--config", config]) == 0
    assert f"0 runs that waited for it, 2 wait in {bucket}/undelivered" in capsys.readouterr().err
    server.back()
    assert outcome.main(["--status", '{"state": "SUCCEEDED"}', "--config", config]) == 0
    assert "MLflow is told of 2 runs that waited for it, 0 wait" in capsys.readouterr().err
    found = server.runs()
    assert set(found) == {"rip", "rip shard 2 of 4"}
    assert json.loads(artifact(server.client, found["rip"], "manifest.json", tmp_path))["digest"] == RIP.digest


@pytest.mark.parametrize("where", ["here", "on S3"])
def test_two_that_tell_at_once_tell_nothing_twice(
    where: str, server: Server, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "kept") if where == "here" else f"{request.getfixturevalue('bucket')}/kept"
    monkeypatch.setenv("RLHI_UNDELIVERED", place)
    server.leave()
    tracking.log_stage(RIP, made(tmp_path / "pairs", RIP), reused=False)
    gate, sent = threading.Barrier(2), []

    def tell() -> None:
        gate.wait()
        sent.append(tracking.deliver(place, server.client.tracking_uri)[0])

    both = [threading.Thread(target=tell) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sorted(sent) == [0, 1]
    assert set(server.runs()) == {"rip"}


def test_who_died_while_telling_is_followed_by_the_next(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = undelivered.open_spool(bucket)
    with spool.alone() as first, undelivered.open_spool(bucket).alone() as second:
        assert (first, second) == (True, False)
        monkeypatch.setattr(undelivered, "STALE", -10.0)
        with undelivered.open_spool(bucket).alone() as third:
            assert third

"""One run in MLflow for each task of a pipeline, whoever makes it: KFP's plugin, or we under the parent run."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlhi import live, tracking
from rlhi.cli import main
from tests.test_ingest import users, write
from tests.test_tracking import runs

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
TASKS = {
    "ingest": [],
    "persona shard 1 of 2": ["--shard", "1/2"],
    "persona shard 2 of 2": ["--shard", "2/2"],
    "persona": [],
}


class Tasks:
    """The tasks of a small pipeline, a stage in shards among them, each slow enough to write while it works."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = write(folder / "logs.jsonl", *users(*[2] * 8))
        self.script = folder / "script.json"
        self.script.write_text(json.dumps({"rules": [{"contains": "", "reply": "- likes figs"}], "delay": 0.05}))

    def run(self, name: str) -> None:
        out, stage = str(self.folder / name), name.split()[0]
        if stage == "ingest":
            argv = ["--source", self.source, "--conversations", out, "--min_conversations", "1", "--eval_share", "0"]
        else:
            engine = ["--engine.kind", "scripted", "--engine.script", str(self.script)]
            argv = ["--conversations", str(self.folder / "ingest"), "--personas", out, *engine]
        assert main([stage, *argv, *TASKS[name]]) == 0


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tasks:
    monkeypatch.setattr(live, "EVERY", 0.02)
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("MLFLOW_RUN_ID", "RLHI_PARENT_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return Tasks(tmp_path)


@pytest.fixture
def client(tasks: Tasks) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{tasks.folder}/mlflow.db")


def test_each_task_fills_the_run_that_kfp_made_for_it_and_makes_none(
    tasks: Tasks, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = client.create_experiment("of KFP")
    parent = client.create_run(place, run_name="of the pipeline").info.run_id
    made = {}
    for name in TASKS:
        tags = {"mlflow.parentRunId": parent}
        made[name] = client.create_run(place, run_name=f"{name}, by KFP", tags=tags).info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", made[name])
        tasks.run(name)
    found = {run.info.run_id: run for run in runs(client)}
    assert found.keys() == {parent, *made.values()}
    for name, run_id in made.items():
        assert found[run_id].data.tags["stage"] == name.split()[0]
        assert found[run_id].data.params["seed"] == "0"
        assert found[run_id].info.status == "RUNNING"  # KFP ends it
    assert not found[parent].data.params
    assert "progress/replies_per_s" in found[made["persona shard 1 of 2"]].data.metrics


def test_each_task_has_one_run_under_the_parent_where_kfp_makes_none(
    tasks: Tasks, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tracking.start_pipeline("demo", {}, client.tracking_uri)
    monkeypatch.setenv("RLHI_PARENT_RUN_ID", parent)
    for name in TASKS:
        tasks.run(name)
    nested = [run for run in runs(client) if run.info.run_id != parent]
    assert sorted(run.info.run_name for run in nested) == sorted(TASKS)
    for run in nested:
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert run.info.status == "FINISHED"
    (shard,) = [run for run in nested if run.info.run_name == "persona shard 1 of 2"]
    assert "progress/replies_per_s" in shard.data.metrics

"""Curves of a stage while it runs, in a real MLflow store: SQLite in a temporary folder."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhi import curves, live, tracking
from rlhi.config import SamplingConfig
from rlhi.engine import Request, generate
from rlhi.engine.scripted import ScriptedEngine
from rlhi.manifest import folder_digest
from tests.rows import messages
from tests.s3_server import client as s3_client
from tests.s3_server import use
from tests.test_tracking import RIP

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
REQUESTS = [Request(f"r{i}", messages(f"Question {i}?")) for i in range(16)]


def slow(request: Request, number: int) -> str:
    time.sleep(0.05)
    return "fig"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


@pytest.fixture
def client(store: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """The store, with an experiment for each test: making a store takes seconds."""
    store.create_experiment(request.node.name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setattr(live, "EVERY", 0.1)
    return store


def runs(client: Any) -> list[Any]:
    return list(client.search_runs([own(client)]))


def own(client: Any) -> str:
    return str(client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"]).experiment_id)


def fail(error: type[BaseException]) -> None:
    with live.reported("rip"):
        ask()
        raise error


def ask() -> None:
    generate(ScriptedEngine(slow), REQUESTS, SamplingConfig(), 1, 0)


def test_run_of_a_stage_has_curves_before_the_stage_ends(client: Any, tmp_path: Path) -> None:
    RIP.save(tmp_path)
    with live.reported("rip") as report:
        ask()
        (during,) = runs(client)
        tracking.log_stage(RIP, tmp_path, reused=False, run_id=report.stop())
    assert during.info.status == "RUNNING"
    (after,) = runs(client)
    assert (after.info.status, after.data.metrics["kept"]) == ("FINISHED", 6)
    curve = [point.value for point in client.get_metric_history(after.info.run_id, "progress/replies")]
    assert len(curve) >= 2
    assert curve == sorted(curve)
    assert 0 < curve[-1] <= len(REQUESTS)
    assert 0 < after.data.metrics["progress/replies_per_s"] < 40  # 20, and more where a window catches a reply's end
    assert 0 <= after.data.metrics["progress/seconds_left"] < 60


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_stage_that_fails_leaves_a_run_that_says_so(client: Any, error: type[BaseException], status: str) -> None:
    with pytest.raises(error):
        fail(error)
    (run,) = runs(client)
    assert run.info.status == status


def test_run_that_kfp_made_is_used_and_left_open(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = client.create_run(own(client)).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt)
    (run,) = runs(client)
    assert (run.info.run_id, run.info.status) == (given, "RUNNING")
    assert run.data.metrics["progress/replies"] > 0


def test_stage_that_asks_no_model_opens_no_run(client: Any) -> None:
    with live.reported("rip") as report:
        time.sleep(0.3)
        assert report.stop() is None
    assert runs(client) == []


def test_server_that_is_away_costs_no_answer(client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    with live.reported("rip") as report:
        ask()
        assert report.stop() is None


def log(steps: int) -> list[dict[str, float]]:
    """What a Trainer has logged after so many steps, validating at every second."""
    rows: list[dict[str, float]] = []
    for n in range(1, steps + 1):
        rows.append({"step": n, "epoch": n / 10, "loss": 0.7 - n / 100, "tokens_per_s": 100 + n})
        if n % 2 == 0:
            rows.append({"step": n, "epoch": n / 10, "eval_loss": 0.7, "eval_runtime": 1.5})
    return [*rows, {"step": steps, "train_runtime": 3.0, "train_loss": 0.6}]


def steps_of(client: Any, run_id: str, name: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, name)]


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def trained(client: Any, job: Path, out: Path) -> None:
    """A stage that follows a training of six steps in ``job``; what is shown after three does not come again."""
    RIP.save(out)
    with live.reported("dpo") as report:
        with live.following(job):
            curves.save(job, log(3))
            eventually(
                lambda: bool(runs(client)) and steps_of(client, runs(client)[0].info.run_id, "train/loss") == [1, 2, 3]
            )
            curves.save(job, log(6))
        curves.save(out, log(6))
        tracking.log_stage(RIP, out, reused=False, run_id=report.stop())


def test_training_is_a_curve_before_it_ends_and_no_step_comes_twice(client: Any, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "out").mkdir()
    trained(client, tmp_path / "job", tmp_path / "out")
    (run,) = runs(client)
    shown = {name for name in run.data.metrics if name.startswith("train/")}
    assert shown == {"train/epoch", "train/loss", "train/tokens_per_s", "train/eval_loss", "train/eval_runtime"}
    assert steps_of(client, run.info.run_id, "train/loss") == [1, 2, 3, 4, 5, 6]
    assert steps_of(client, run.info.run_id, "train/tokens_per_s") == [1, 2, 3, 4, 5, 6]
    assert steps_of(client, run.info.run_id, "train/eval_loss") == [2, 4, 6]


def test_training_that_starts_again_in_the_same_run_doubles_no_step(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = client.create_run(own(client)).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    (tmp_path / "out").mkdir()
    with live.reported("dpo") as killed, live.following(tmp_path):
        curves.save(tmp_path, log(5))
        eventually(lambda: steps_of(client, given, "train/loss") == [1, 2, 3, 4, 5])
    killed.stop()
    curves.save(tmp_path, log(2))  # from the checkpoint after the second step
    with live.reported("dpo") as report:
        with live.following(tmp_path):
            curves.save(tmp_path, log(6))
            eventually(lambda: 6 in steps_of(client, given, "train/loss"))
        curves.save(tmp_path / "out", log(8))
        RIP.save(tmp_path / "out")
        tracking.log_stage(RIP, tmp_path / "out", reused=False, run_id=report.stop())
    for name in ("train/loss", "train/tokens_per_s"):
        assert steps_of(client, given, name) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_a_server_missed_is_delivered_at_the_end(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    with live.reported("dpo") as report:
        with live.following(tmp_path):
            curves.save(tmp_path, log(6))
            time.sleep(0.3)
        run_id = report.stop()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    RIP.save(tmp_path)
    tracking.log_stage(RIP, tmp_path, reused=False, run_id=run_id)
    (run,) = runs(client)
    assert steps_of(client, run.info.run_id, "train/loss") == [1, 2, 3, 4, 5, 6]


def test_long_history_arrives_whole(client: Any, tmp_path: Path) -> None:
    RIP.save(tmp_path)
    curves.save(tmp_path, log(600))
    tracking.log_stage(RIP, tmp_path, reused=False)
    (run,) = runs(client)
    assert steps_of(client, run.info.run_id, "train/loss") == [*range(1, 601)]


def test_speed_is_no_part_of_what_a_training_made(tmp_path: Path) -> None:
    digests = set()
    for speed in (1.0, 2.0):
        curves.save(
            tmp_path,
            [{"step": 1, "loss": 0.7, "tokens_per_s": speed}, {"step": 1, "eval_loss": 0.7, "eval_runtime": speed}],
        )
        digests.add(folder_digest(tmp_path))
    assert len(digests) == 1
    assert ("train/tokens_per_s", 2.0, 1) in curves.points(tmp_path)


def test_training_in_pods_is_followed_on_s3(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(s3, monkeypatch)
    s3_client(s3).create_bucket(Bucket="jobs")
    assert curves.points("s3://jobs/one") == []
    curves.save("s3://jobs/one", log(3))
    assert [step for name, _, step in curves.points("s3://jobs/one") if name == "train/loss"] == [1, 2, 3]

"""Both methods against real servers that fail: S3 answers with errors, slowly or not at all, and MLflow goes away.

Logs, model, replies, checkpoints and what waits for MLflow are on S3. MLflow is down from the first answers until all
that trains has trained.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rlhi import manifest, tracking
from rlhi.engine.s3 import bucket, parts
from rlhi.engine.s3 import store as shared
from tests import s3_server
from tests.mlflow_server import mlflow_server
from tests.s3_server import Fault, Proxy, client, use
from tests.test_chain import Run
from tests.test_models_s3 import upload
from tests.test_tracking import closed_port

__all__ = ["closed_port"]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")]
FAULTS: tuple[Fault, ...] = ("503", "drop", "reset", "slow", "lose the answer")
EVERY = 9  # requests, of which one fails
NAMES = ("rewrites", "rewards")


class Chain(Run):
    """A chain of stages with its logs and its model on S3, and a parent run in MLflow."""

    def __init__(self, folder: Path, place: str, endpoint: str, tracked: str) -> None:
        super().__init__(folder, Path("nowhere"))
        self.place, self.endpoint = place, endpoint
        self.model["id"] = f"{place}/model"
        self.turns = 2
        self.parent = tracking.start_pipeline(folder.name, {}, tracked)

    def write_logs(self) -> str:
        name, _, prefix = self.place.removeprefix("s3://").partition("/")
        body = Path(super().write_logs()).read_bytes()
        client(self.endpoint).put_object(Bucket=name, Key=f"{prefix}/logs/chat.jsonl", Body=body)
        return f"{self.place}/logs/"

    def answer(self) -> str:
        """What the two methods differ in; gives the stage."""
        config: dict[str, Any] = {"engine": self.engine, "sampling": self.sampling}
        read = {"turns": "classify", "personas": "persona"}
        if self.folder.name == "rewards":
            more = {"n": 4, "max_prompts": 12, "keep_cut": True}
            self.stage("sample", "samples", config | more, conversations="ingest", **read)
            return "sample"
        self.stage(
            "reconstruct",
            "reconstructed",
            config | {"only_before_feedback": True},
            conversations="ingest",
            turns="classify",
        )
        self.stage("rewrite", "rewrites", config, conversations="reconstruct", **read)
        return "rewrite"

    @contextmanager
    def traced(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with monkeypatch.context() as patched:
            patched.setenv("RLHI_PARENT_RUN_ID", self.parent)
            yield

    def manifests(self) -> dict[str, manifest.Manifest]:
        return {path.name: manifest.load(path) for path in self.folder.iterdir()}


@pytest.fixture
def proxy(s3: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """S3 with everything on it, every ninth request to which fails in one of five ways."""
    monkeypatch.setattr(bucket, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(bucket, "READ", 0.5)
    monkeypatch.setattr(s3_server, "SLOW", 0.6)  # too slow: it is asked again
    monkeypatch.setattr(parts, "EVERY", 0.2)
    for module in (bucket, shared):
        monkeypatch.setattr(module, "LONGEST_WAIT", 0.05)
    with suppress(ClientError):  # it is there
        client(s3).create_bucket(Bucket="real")
    place = f"s3://real/{tmp_path.name}"
    upload(s3, tiny_model, f"{place}/model")
    for name, folder in {"RLHI_REPLIES": "replies", "RLHI_CHECKPOINTS": "steps", "RLHI_UNDELIVERED": "kept"}.items():
        monkeypatch.setenv(name, f"{place}/{folder}")
    monkeypatch.setenv("RLHI_CACHE", str(tmp_path / "cache"))
    with Proxy(s3) as proxy:
        use(proxy.url, monkeypatch)
        yield proxy


def hurt(proxy: Proxy) -> Counter[Fault]:
    """Lets it fail; gives how often it did, by how."""
    met: Counter[Fault] = Counter()

    def fault(method: str, path: str) -> Fault | None:
        asked = len(proxy.seen)
        if asked % EVERY:
            return None
        met[FAULTS[asked // EVERY % len(FAULTS)]] += 1
        return FAULTS[asked // EVERY % len(FAULTS)]

    proxy.fault = fault
    return met


def test_both_methods_lose_nothing_while_s3_fails_and_mlflow_is_away(
    proxy: Proxy, s3: str, closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    place, store = f"s3://real/{tmp_path.name}", f"sqlite:///{tmp_path / 'mlflow.db'}"
    met, candidates = hurt(proxy), {}
    with mlflow_server(tmp_path, store, closed_port) as tracked:
        chains = {name: Chain(tmp_path / name, place, s3, tracked) for name in NAMES}
        with chains["rewrites"].traced(monkeypatch):
            chains["rewrites"].start()
    with chains["rewards"].traced(monkeypatch):
        chains["rewards"].start()
    for name, chain in chains.items():
        with chain.traced(monkeypatch):
            candidates[name] = chain.answer()
            chain.train(candidates[name])
    assert bucket.Bucket(f"{place}/kept").names("")
    with mlflow_server(tmp_path, store, closed_port) as tracked:
        for chain in chains.values():
            with chain.traced(monkeypatch):
                chain.judge()
            tracking.finish_pipeline(chain.parent, [*chain.manifests().values()], tracked, place=f"{place}/kept")
        for chain in chains.values():
            check_outputs(chain)
            check_runs(chain, tracked)
    assert not bucket.Bucket(f"{place}/kept").names("")
    assert all(met[fault] > 3 for fault in FAULTS)
    check_replies(chains["rewards"])


def check_outputs(chain: Chain) -> None:
    """No row is lost on the way."""
    funnel = manifest.load(chain["evaluate"]).funnel
    assert {row.stage for row in funnel} == chain.manifests().keys()
    for row in funnel:
        assert row.rows_in == row.kept + sum(row.dropped.values())
        assert row.kept
    assert not any("unanswered" in row.dropped for row in funnel)


def check_runs(chain: Chain, tracked: str) -> None:
    """MLflow has one run for each stage, with every figure of it, also those of the time when it was away."""
    from mlflow import MlflowClient

    mlflow = MlflowClient(tracking_uri=tracked)
    parent = mlflow.get_run(chain.parent)
    found = mlflow.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{chain.parent}'")
    runs = {run.info.run_name: run for run in found}
    assert sorted(run.info.run_name for run in found) == sorted(chain.manifests())
    for name, described in chain.manifests().items():
        assert runs[name].info.status == "FINISHED"
        assert runs[name].data.tags["digest"] == described.digest
        assert (runs[name].data.metrics["rows_in"], runs[name].data.metrics["kept"]) == (
            described.rows_in,
            described.kept,
        )
    history = json.loads((chain["dpo"] / "history.json").read_text())
    told = mlflow.get_metric_history(runs["dpo"].info.run_id, "train/loss")
    assert [(point.step, point.value) for point in told] == [
        (row["step"], row["loss"]) for row in history if "loss" in row
    ]
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["dpo.steps"] == len(told)


def check_replies(chain: Chain) -> None:
    """Every reply is on S3: who asks again asks no model."""
    config = {"engine": chain.engine, "sampling": chain.sampling, "history_tokens": 1000}
    argv = [
        f"--{name}={value}" for name, value in {"conversations": chain["ingest"], "personas": chain["again"]}.items()
    ]
    from rlhi.cli import main

    assert main(["persona", *argv, "--config", json.dumps(config)]) == 0
    assert manifest.load(chain["again"]).metrics.get("replies/asked", 0) == 0
    assert manifest.load(chain["again"]).digest == manifest.load(chain["persona"]).digest

"""The tasks around the stages on a cluster: the check before, the outcome after, and what recurring runs have read."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhi import watermark
from rlhi.check import probes
from rlhi.check.config import CheckConfig
from rlhi.check.task import Report, check
from rlhi.cli import main
from rlhi.engine.s3.bucket import Bucket
from rlhi.errors import InputError
from rlhi.manifest import load
from rlhi.sources import list_files
from tests.answers import Answers
from tests.test_ingest import users, write

SEARCH = "/api/2.0/mlflow/experiments/search"


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    """A hub and an MLflow that answer."""
    with Answers() as answers:
        answers.say(SEARCH, 200, {"experiments": []})
        monkeypatch.setenv("MLFLOW_TRACKING_URI", answers.url)
        monkeypatch.setenv("HF_ENDPOINT", answers.url)
        for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "KUBERNETES_SERVICE_HOST"):
            monkeypatch.delenv(name, raising=False)
        yield answers


def logs(folder: Path, name: str = "logs.jsonl", count: int = 4) -> str:
    return write(folder / name, *users(*[3] * count))


def test_check_passes_where_all_is_there(
    there: Answers, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.say("/api/models/org/model/revision/abc", 200, {})
    there.say("/v1/models", 200, {})
    there.guard("/v1/models", "Bearer k3y", "Bearer")
    monkeypatch.setenv("JUDGE_KEY", "k3y")
    config = CheckConfig(
        place=f"{bucket}/root",
        variables=("AWS_ACCESS_KEY_ID",),
        models=("org/model@abc", "embedded"),
        servers={f"{there.url}/v1": "JUDGE_KEY"},
    )
    assert check({"source": logs(tmp_path), "forget": "", "compare": logs(tmp_path, "b.jsonl")}, config) == Report()
    assert Bucket(bucket).names("") == []  # the check leaves nothing behind


def test_check_lists_all_that_is_missing_at_once(
    there: Answers,
    s3: str,
    bucket: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there.say(SEARCH, 403, {"message": "Invalid Host header"})
    there.say("/v1/models", 401, {})
    there.say("/api/models/org/closed/revision/main", 401, {})
    monkeypatch.delenv("LACKING", raising=False)
    config = {
        "place": "s3://no-such-bucket/root",
        "variables": ["LACKING"],
        "models": ["org/gone", "org/closed", "/models/mine"],
        "servers": {"http://127.0.0.1:9/v1": "LACKING", f"{there.url}/v1": "LACKING"},
        "accelerators": ["nvidia.com/gpu"],
    }
    data = ["--source", str(tmp_path / "none"), "--benchmarks", f"{logs(tmp_path)},{tmp_path}/gone.jsonl"]
    assert main(["check", *data, "--config", json.dumps(config)]) == 2
    said = capsys.readouterr().err.splitlines()
    missing = [line.removeprefix("missing: ") for line in said if line.startswith("missing: ")]
    assert [line.split(": ")[0] for line in missing] == [
        "MLflow",
        "benchmarks",
        "bucket s3://no-such-bucket/root",
        "model org/closed",
        "model org/gone",
        f"server {there.url}/v1",
        "server http://127.0.0.1:9/v1",
        "source",
        "variable LACKING",
    ]
    assert "--allowed-hosts" in missing[0]
    assert "gone.jsonl: no such file" in missing[1]
    assert "HF_TOKEN" in missing[3]
    assert [line for line in said if line.startswith("not checked: ")] == [
        "not checked: accelerator nvidia.com/gpu: no pod of a cluster, so its nodes cannot be asked",
        "not checked: model /models/mine: is a folder, which only the pods that read it see",
    ]
    assert said[-1] == "check: 9 missing"


def test_check_ends_although_something_never_answers(there: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "server", lambda *_: time.sleep(60))
    began = time.monotonic()
    report = check({}, CheckConfig(servers={"http://slow/v1": "KEY"}, seconds=0.3))
    assert report.missing == ["server http://slow/v1: no answer in 0 s"]
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("status", "allocatable", "missing", "unchecked"),
    [(200, {"nvidia.com/gpu": "8"}, 0, 0), (200, {"nvidia.com/gpu": "0"}, 1, 0), (200, {}, 1, 0), (403, {}, 0, 1)],
)
def test_nodes_are_asked_for_accelerators_where_that_is_allowed(
    status: int,
    allocatable: dict[str, str],
    missing: int,
    unchecked: int,
    there: Answers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there.say("/api/v1/nodes", status, {"items": [{"status": {"allocatable": allocatable}}]})
    (tmp_path / "token").write_text("t0k")
    monkeypatch.setattr(probes, "ACCOUNT", tmp_path)
    monkeypatch.setattr(probes, "SCHEME", "http")
    host, _, port = there.address.partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    report = check({}, CheckConfig(accelerators=("nvidia.com/gpu",)))
    assert (len(report.missing), len(report.unchecked)) == (missing, unchecked)


def test_config_of_the_tasks_around_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", '{"bucket": "s3://b"}']) == 2
    assert main(["check", "--config", "[]"]) == 2
    assert main(["outcome", "--config", "{}"]) == 2
    assert capsys.readouterr().err.count("error: ") == 3


def outcome(bucket: str, status: Any, run: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is written down of a run that ended so."""
    monkeypatch.setenv("RLHI_RUN_ID", run)
    text = status if isinstance(status, str) else json.dumps(status)
    config = json.dumps({"place": f"{bucket}/outcomes", "recipe": "no-filter"})
    assert main(["outcome", "--status", text, "--config", config]) == 0
    body = Bucket(f"{bucket}/outcomes").get(f"{run}.json").body
    assert body is not None
    return json.loads(body)


def test_every_outcome_is_written_down(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = outcome(bucket, {"state": "SUCCEEDED"}, "r1", monkeypatch)
    assert (good["run"], good["recipe"], good["state"]) == ("r1", "no-filter", "SUCCEEDED")
    bad = outcome(bucket, {"state": "FAILED", "error": {"message": "out of memory"}}, "r2", monkeypatch)
    assert (bad["state"], bad["error"]) == ("FAILED", {"message": "out of memory"})
    odd = outcome(bucket, "{{$.inputs.parameters['status']}}", "r3", monkeypatch)
    assert (odd["state"], odd["error"]) == ("unknown", "{{$.inputs.parameters['status']}}")


class Recurring:
    """A recurring run whose source is a folder: `ingest`, and then the outcome."""

    def __init__(self, bucket: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bucket, self.folder, self.patch = bucket, folder, monkeypatch
        self.source = folder / "logs"
        self.source.mkdir()
        self.number = 0
        monkeypatch.setenv(watermark.VARIABLE, f"{bucket}/watermark")

    def add(self, name: str, count: int) -> None:
        write(self.source / name, *users(*[3] * count))

    def ingest(self) -> int:
        self.number += 1
        self.patch.setenv("RLHI_RUN_ID", f"r{self.number}")
        flags = ["--min_conversations", "1", "--eval_share", "0"]
        return main(["ingest", "--source", str(self.source), "--conversations", str(self.out), *flags])

    @property
    def out(self) -> Path:
        return self.folder / f"out{self.number}"

    def end(self, state: str) -> None:
        outcome(self.bucket, {"state": state}, f"r{self.number}", self.patch)


@pytest.fixture
def recurring(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recurring:
    return Recurring(bucket, tmp_path, monkeypatch)


@pytest.mark.slow
def test_recurring_run_reads_only_what_is_new_since_the_last_good_one(
    recurring: Recurring, capsys: pytest.CaptureFixture[str]
) -> None:
    recurring.add("a.jsonl", 2)
    assert recurring.ingest() == 0
    first = load(recurring.out).rows_in
    recurring.end("SUCCEEDED")
    recurring.add("b.jsonl", 5)
    assert recurring.ingest() == 0
    assert (first, load(recurring.out).rows_in) == (6, 15)
    recurring.end("SUCCEEDED")
    capsys.readouterr()
    assert recurring.ingest() == 0
    assert (
        load(recurring.out)
        .notes["nothing new"]
        .endswith("none of its 2 files is new since the last run that succeeded")
    )


@pytest.mark.slow
def test_run_with_nothing_new_succeeds_and_asks_no_model(recurring: Recurring, tmp_path: Path) -> None:
    recurring.add("a.jsonl", 2)
    assert recurring.ingest() == 0
    recurring.end("SUCCEEDED")
    seen = Bucket(f"{recurring.bucket}/watermark").get(watermark.SEEN).body
    assert recurring.ingest() == 0
    recurring.patch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    config = json.dumps({"engine": {"model": {"id": "/no/such/model"}}})
    talks, turns, personas, candidates = (str(tmp_path / name) for name in ("out2", "turns", "personas", "candidates"))
    assert (
        main(["classify", "--conversations", talks, "--turns", f"{turns}-1", "--shard", "1/2", "--config", config]) == 0
    )
    assert main(["classify", "--conversations", talks, "--turns", turns, "--config", config]) == 0
    assert main(["persona", "--conversations", talks, "--personas", personas, "--config", config]) == 0
    read = ["--conversations", talks, "--turns", turns, "--personas", personas]
    assert main(["sample", *read, "--samples", candidates, "--config", config]) == 0
    for folder in (talks, turns, personas, candidates):
        described = load(Path(folder))
        assert (described.rows_in, described.kept, described.users) == (0, 0, 0)
        assert "none of its 1 files is new" in described.notes["nothing new"]
    told = outcome(recurring.bucket, {"state": "SUCCEEDED"}, "r2", recurring.patch)
    assert (told["state"], told["nothing_new"]) == ("SUCCEEDED", True)
    assert Bucket(f"{recurring.bucket}/watermark").get(watermark.SEEN).body == seen


@pytest.mark.slow
def test_run_goes_on_from_one_that_had_nothing_new(recurring: Recurring, tmp_path: Path) -> None:
    """An earlier run's personas that say so do not keep this run's from being made."""
    recurring.add("a.jsonl", 2)
    assert recurring.ingest() == 0
    recurring.end("SUCCEEDED")
    assert recurring.ingest() == 0
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"rules": [{"contains": "", "reply": "- likes figs"}]}))
    config = json.dumps({"engine": {"kind": "scripted", "script": str(script)}})
    assert (
        main(["persona", "--conversations", str(recurring.out), "--personas", str(tmp_path / "p2"), "--config", config])
        == 0
    )
    recurring.add("b.jsonl", 3)
    assert recurring.ingest() == 0
    argv = ["persona", "--conversations", str(recurring.out), "--previous", str(tmp_path / "p2")]
    assert main([*argv, "--personas", str(tmp_path / "p3"), "--config", config]) == 0
    assert load(tmp_path / "p3").kept == 3


@pytest.mark.slow
def test_what_a_failed_run_has_read_is_read_again(recurring: Recurring) -> None:
    recurring.add("a.jsonl", 2)
    assert recurring.ingest() == 0
    recurring.end("FAILED")
    recurring.add("b.jsonl", 5)
    assert recurring.ingest() == 0
    assert load(recurring.out).rows_in == 21
    recurring.end("unknown")
    assert Bucket(f"{recurring.bucket}/watermark").names("") == []


@pytest.mark.slow
def test_file_that_has_changed_is_new(recurring: Recurring) -> None:
    recurring.add("a.jsonl", 2)
    recurring.add("b.jsonl", 2)
    assert recurring.ingest() == 0
    recurring.end("SUCCEEDED")
    recurring.add("b.jsonl", 3)
    (new,) = watermark.unseen("logs", list_files(str(recurring.source)))
    assert new.name == "b.jsonl"


@pytest.mark.slow
def test_pod_that_is_tried_again_reads_the_same(recurring: Recurring) -> None:
    recurring.add("a.jsonl", 2)
    assert recurring.ingest() == 0
    recurring.number -= 1
    again = watermark.take("logs", list_files(str(recurring.source)))
    assert [file.name for file in again] == ["a.jsonl"]


@pytest.mark.slow
def test_outputs_kept_for_reuse_are_told_apart_by_what_was_seen(
    recurring: Recurring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_STORE", str(recurring.folder / "store"))
    recurring.add("a.jsonl", 2)
    recurring.add("b.jsonl", 2)
    assert recurring.ingest() == 0
    one = load(recurring.out).inputs
    recurring.end("SUCCEEDED")
    recurring.add("b.jsonl", 2)  # written anew, with the same content
    assert recurring.ingest() == 0
    assert load(recurring.out).inputs["watermark"] != one["watermark"]
    assert load(recurring.out).rows_in == 6


def test_watermark_needs_the_id_of_the_run(recurring: Recurring, monkeypatch: pytest.MonkeyPatch) -> None:
    recurring.add("a.jsonl", 2)
    monkeypatch.delenv("RLHI_RUN_ID", raising=False)
    with pytest.raises(InputError, match="RLHI_RUN_ID is not"):
        watermark.take("logs", list_files(str(recurring.source)))


@pytest.mark.slow
def test_check_says_that_nothing_is_new(there: Answers, recurring: Recurring) -> None:
    recurring.add("a.jsonl", 2)
    assert recurring.ingest() == 0
    recurring.end("SUCCEEDED")
    report = check({"source": str(recurring.source)}, CheckConfig())
    assert not report.missing
    (line,) = report.unchecked
    assert line.startswith("source: ")
    assert line.endswith("is new since the last run that succeeded; the stages have nothing to do")

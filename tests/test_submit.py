"""What `submit` sends to a KFP server, what it tells of a run, and what it refuses before anything is created."""

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from pipelines import kfp_server, reach, submit
from pipelines.__main__ import main
from rlhi.errors import InputError
from tests.answers import Answers
from tests.fake_kfp import FakeKfp
from tests.submissions import Place, at_no_cluster, refused

GKE = Path(__file__).parents[1] / "profiles/gke.yaml"


@pytest.fixture(autouse=True)
def _at_no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    at_no_cluster(monkeypatch, tmp_path)
    monkeypatch.setattr(submit, "FIRST_PAUSE", 0.01)


def test_dry_run_needs_no_server_and_prints_what_would_be_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "user-guided-rewrites", "--profile", str(GKE), "--dry-run"]) == 0
    sent = yaml.safe_load(capsys.readouterr().out)
    assert sent["pipeline"] == "user-guided-rewrites"
    assert sent["version"].startswith("user-guided-rewrites-")
    assert sent["service_account"] == "pipeline-runner"
    assert sent["tasks"]["dpo"]["accelerator"] == "8 nvidia.com/gpu"
    assert sent["tasks"]["dpo"]["queue"] == "rlhi-training"
    assert sent["tasks"]["check"]["image"].startswith("registry.example.com/rlhi/cpu@sha256:")


def test_run_is_started_with_its_parameters_and_followed_to_its_end(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    def tasks(state: str) -> list[dict[str, str]]:
        return [{"display_name": "ingest", "state": state}, {"display_name": "ingest-driver", "state": state}]

    with FakeKfp(tasks=tasks) as kfp:
        assert main(place.argv(kfp, "--wait", "--name", "mine", "--ui", "http://ui")) == 0
        (run,), (experiment,), (version,) = kfp.kept["runs"], kfp.kept["experiments"], kfp.kept["versions"]
    assert run["display_name"] == "mine"
    assert run["runtime_config"]["parameters"] == {
        "source": place.source,
        "forget": "",
        "compare": "",
        "benchmarks": "",
    }
    assert run["runtime_config"]["pipeline_root"] == f"{place.root}/runs"
    assert run["service_account"] == "pipeline-runner"
    assert run["experiment_id"] == experiment["experiment_id"]
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    out = capsys.readouterr().out
    assert f"http://ui/#/runs/details/{run['run_id']}" in out
    assert [line.split(" ", 1)[1] for line in out.splitlines() if " ingest" in line] == [
        "ingest: pending",
        "ingest: running",
        "ingest: succeeded",
    ]


@pytest.mark.slow
def test_same_recipe_is_uploaded_once_and_a_changed_one_is_another_version(kfp: FakeKfp, place: Place) -> None:
    assert [main(place.argv(kfp)) for _ in range(2)] == [0, 0]
    assert (len(kfp.kept["pipelines"]), len(kfp.kept["versions"]), len(kfp.kept["runs"])) == (1, 1, 2)
    assert main(place.argv(kfp, "--set", "dpo.epochs=3")) == 0
    assert (len(kfp.kept["pipelines"]), len(kfp.kept["versions"])) == (1, 2)


@pytest.mark.parametrize("state", ["FAILED", pytest.param("CANCELED", marks=pytest.mark.slow)])
def test_run_that_does_not_succeed_is_exit_code_1_with_the_reason(
    state: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    def tasks(now: str) -> list[dict[str, Any]]:
        return [{"display_name": "dpo", "state": now, "error": {"code": 2, "message": "out of memory"}}]

    with FakeKfp(["RUNNING", state], tasks) as kfp:
        assert main(place.argv(kfp, "--wait")) == 1
    assert f"dpo: {state.lower()}: out of memory" in capsys.readouterr().out


@pytest.mark.slow
def test_server_that_stays_away_for_a_moment_does_not_end_the_following(kfp: FakeKfp, place: Place) -> None:
    looks: list[str] = []

    def away(request: web.Request) -> web.Response | None:
        looks.append(request.path)
        is_look = request.path.startswith("/apis/v2beta1/runs/")
        return web.Response(status=503) if is_look and sum("runs/" in each for each in looks) < 3 else None

    kfp.refuses = away
    assert main(place.argv(kfp, "--wait")) == 0


@pytest.mark.slow
def test_recurring_run_is_made_once_and_never_overlaps_itself(
    kfp: FakeKfp, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduled = place.argv(kfp, "--schedule", "0 3 * * *")
    assert [main(scheduled) for _ in range(2)] == [0, 0]
    (made,) = kfp.kept["recurringruns"]
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == (1, True, "ENABLE")
    assert made["display_name"] == "no-filter"
    assert "scheduled already" in capsys.readouterr().out
    assert kfp.kept["runs"] == []
    # another schedule of that name would read the same logs beside it
    assert main(place.argv(kfp, "--schedule", "0 4 * * *")) == 2
    assert "another recurring run no-filter" in capsys.readouterr().err
    assert len(kfp.kept["recurringruns"]) == 1


def test_token_is_read_anew_for_each_request(kfp: FakeKfp, place: Place, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    kfp.token = "first"
    address = reach.address(kfp.url, token, "kubeflow")
    kfp_server.check_version(address)
    server = kfp_server.Server(address, "kubeflow")
    kfp.token = "second"
    token.write_text("second\n")
    assert server.upload("no-filter", "v", _package(tmp_path), "").new


def _package(folder: Path) -> Path:
    path = folder / "graph.yaml"
    path.write_text("schemaVersion: 2.1.0\n")
    return path


def test_token_that_is_missing_or_wrong_is_said(
    kfp: FakeKfp, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp.token = "right"
    assert "refuses (401); give a token" in refused(place.argv(kfp), kfp, capsys)
    gone = place.argv(kfp, "--token-file", str(tmp_path / "gone"))
    assert "gone: cannot be read" in refused(gone, kfp, capsys)


def test_pod_of_a_cluster_finds_its_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no pod of a cluster; give the address of KFP, or --port-forward"):
        reach.address(None, None, "team")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert reach.address(None, None, "team").url == "http://ml-pipeline.team.svc.cluster.local:8888"


def test_run_that_is_not_followed_any_more_goes_on(
    kfp: FakeKfp, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    server = kfp_server.Server(reach.address(kfp.url, None, "kubeflow"), "kubeflow")
    version = server.upload("no-filter", "v", _package(tmp_path), "")
    run = server.start(kfp_server.Order("mine", "rlhi", {}, "s3://b/r", "pipeline-runner"), version)
    monkeypatch.setattr("time.sleep", interrupt)
    assert submit.follow(server, run, "http://ui/run") == 130
    assert "the run goes on: http://ui/run" in capsys.readouterr().err
    assert not any("terminate" in each for each in kfp.created)


@pytest.mark.slow
def test_kubectl_forwards_a_port_for_as_long_as_it_is_needed(
    kfp: FakeKfp, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kubectl(
        tmp_path,
        f"echo $$ > {tmp_path}/pid; echo Forwarding from {kfp.url.removeprefix('http://')} -; exec sleep 300",
        monkeypatch,
    )
    argv = [part for part in place.argv(kfp, "--port-forward") if part not in ("--host", kfp.url)]
    began = time.monotonic()
    assert main(argv) == 0
    assert time.monotonic() - began < 100
    assert len(kfp.kept["runs"]) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_kubectl_that_does_not_get_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _kubectl(tmp_path, "echo 'services \"ml-pipeline\" not found' >&2; exit 1", monkeypatch)
    with pytest.raises(InputError, match="kubectl does not get there: services"), reach.forwarded("kubeflow", None):
        pass


def _kubectl(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "bin/kubectl"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("version", "message"),
    [("1.8.5", "KFP 1.8.5 is too old; version 2 is needed"), ("3.0.0", "KFP 3.0.0 is of another major version")],
)
def test_kfp_of_another_major_version_is_refused(
    version: str, message: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeKfp(version=version) as kfp:
        assert message in refused(place.argv(kfp), kfp, capsys)


def test_server_that_is_no_kfp_and_one_that_does_not_answer_are_named(
    place: Place, images: Answers, kfp: FakeKfp, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = place.argv(kfp)
    argv[argv.index(kfp.url)] = f"http://{images.address}"
    assert "is no KFP server" in refused(argv, kfp, capsys)
    argv[argv.index(f"http://{images.address}")] = "http://127.0.0.1:9"
    assert "127.0.0.1:9: no answer" in refused(argv, kfp, capsys)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--schedule", "daily"], "--schedule 'daily': not five fields"),
        (["--schedule", "0 3 * * *", "--name", "../x"], "--name '../x'"),
        (["--schedule", "0 3 * * *", "--wait"], "--wait: a recurring run has no end"),
        (["--forget", "who.txt"], "who.txt: pods do not see this machine's files"),
        (["--set", "benchmark.n=1"], "give --benchmarks"),
        (["--host", "kfp.example.com"], "--host: not an address"),
        (["--host", "https://me:hush@kfp.example.com"], "--host: not an address"),
        (["--source", ""], "--source: is missing"),
        (["--source", "s3://tests/nothing-here"], "no such file or folder"),
        (["--source", "s3://no-such-bucket/logs"], "no bucket no-such-bucket is there"),
    ],
)
def test_bad_flags_are_one_line_and_nothing_is_created(
    more: list[str], message: str, kfp: FakeKfp, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(place.argv(kfp, *more), kfp, capsys)
    assert message in line
    assert "hush" not in line


@pytest.mark.slow
def test_server_that_refuses_is_one_line(kfp: FakeKfp, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    kfp.refuses = lambda request: (
        web.json_response({"message": "no room\nat all"}, status=403) if request.method == "POST" else None
    )
    assert main(place.argv(kfp)) == 2
    assert capsys.readouterr().err == f"error: {kfp.url}: no room at all (403)\n"

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from rlhi.dpo.launch import Work, launch
from rlhi.dpo.trainjob import cluster
from rlhi.dpo.trainjob.config import TrainJobConfig
from rlhi.dpo.trainjob.manifest import manifest
from rlhi.errors import InputError
from tests.kubernetes_server import COMPLETE, STARTING, TRAINING, Job, KubernetesServer, ended, status
from tests.test_trainjob_manifest import ON_SPOT, WORK

NAME = "rlhi-dpo-0123456789abcdef"
HERE = """
import signal, sys
from rlhi.dpo.launch import Work, launch
from rlhi.dpo.trainjob.config import TrainJobConfig
signal.signal(signal.SIGTERM, signal.default_int_handler)
with launch(Work("s3://bucket/job", "0123456789abcdef", nodes=2, processes=8), lambda: None, TrainJobConfig()):
    print("read", flush=True)
"""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(cluster, "PAUSE", 0.01)


@contextmanager
def serving(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: KubernetesServer | None = None
) -> Iterator[KubernetesServer]:
    with server or KubernetesServer() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path)))
        yield running


def run(config: TrainJobConfig = ON_SPOT, work: Work = WORK, read: Callable[[], object] = lambda: None) -> None:
    with launch(work, lambda: pytest.fail("did the work in this process"), config):
        read()


def test_work_on_several_nodes_is_done_when_it_is_read_and_then_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there: list[Job] = []
    with serving(monkeypatch, tmp_path) as server:
        run(read=lambda: there.extend(server.jobs.values()))
    assert [job["status"] for job in there] == [COMPLETE]
    assert server.deleted == [NAME]
    assert not server.jobs


def test_progress_is_told_once_for_each_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    suspended = {"conditions": [{"type": "Suspended", "status": "True", "reason": "Suspended", "message": ""}]}
    half = {**TRAINING, "trainerStatus": {"progressPercentage": 50}}
    with (
        caplog.at_level("INFO", logger="rlhi"),
        serving(monkeypatch, tmp_path, KubernetesServer((suspended, STARTING, TRAINING, TRAINING, half, COMPLETE))),
    ):
        run()
    told = [record.getMessage().removeprefix(f"TrainJob team/{NAME}: ") for record in caplog.records]
    assert [line for line in told if line != "made"] == [
        "waits to be admitted",
        "its pods start",
        "trains on all nodes",
        "50% done",
        "complete",
    ]


@pytest.mark.parametrize("cut", [1, 2])
def test_watch_that_breaks_is_taken_up_again(cut: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(monkeypatch, tmp_path, KubernetesServer((STARTING, TRAINING, STARTING, COMPLETE), cut=cut)) as server:
        run()
    assert server.asked.count("GET") >= 2
    assert server.deleted == [NAME]


def test_version_that_is_forgotten_is_listed_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def one_more(request: web.Request) -> web.Response | None:
        if "watch" in request.query and server.asked.count("WATCH") == 1:
            server._change("MODIFIED", server.jobs[NAME])  # between list and watch
            server._change("MODIFIED", server.jobs[NAME])
        return None

    server = KubernetesServer((), kept=1, refuses=one_more)
    with serving(monkeypatch, tmp_path, server):
        server.statuses = (TRAINING, COMPLETE)
        run()
    assert server.asked.count("GET") >= 2
    assert server.deleted == [NAME]


def test_server_that_fails_for_a_while_ends_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def down(request: web.Request) -> web.Response | None:
        asked = len(server.asked)
        return status(503, "the server is currently unable to handle the request") if 1 < asked < 6 else None

    server = KubernetesServer(refuses=down)
    with serving(monkeypatch, tmp_path, server):
        run()
    assert len(server.made) == 1
    assert server.deleted == [NAME]


def test_server_that_is_gone_for_good_leaves_the_trainjob(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.05)
    server = KubernetesServer((TRAINING,), lambda r: status(503, "away") if r.method == "GET" else None)
    with serving(monkeypatch, tmp_path, server), pytest.raises(InputError, match="away"):
        run()
    assert list(server.jobs) == [NAME]


@pytest.mark.parametrize("state", [TRAINING, COMPLETE])
def test_trainjob_of_a_pod_that_was_killed_is_adopted(
    state: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serving(monkeypatch, tmp_path) as server:
        server.put(manifest(WORK, ON_SPOT), state)

        def later(request: web.Request) -> web.Response | None:
            if "watch" in request.query:
                server._change("MODIFIED", {**server.jobs[NAME], "status": COMPLETE})
            return None

        server.refuses = later
        run()
    assert not server.made
    assert server.deleted == [NAME]


def test_trainjob_that_failed_before_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(monkeypatch, tmp_path) as server:
        server.put(manifest(WORK, TrainJobConfig()), ended("Failed", "FailedJobs", "job failed"))
        server.lingers = 0.1
        run()
    assert len(server.made) == 1
    assert server.deleted == [NAME, NAME]


def test_trainjob_that_is_being_deleted_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(monkeypatch, tmp_path) as server:
        body = manifest(WORK, ON_SPOT)
        server.put({**body, "metadata": {**body["metadata"], "deletionTimestamp": "2026-11-26T11:00:00Z"}}, TRAINING)
        server.lingers = 0.1
        run()
    assert len(server.made) == 1


@pytest.mark.parametrize(
    ("work", "config"),
    [(replace(WORK, job="s3://bucket/another"), ON_SPOT), (WORK, replace(ON_SPOT, queue=None, runtime="other"))],
)
def test_trainjob_of_other_work_under_the_same_name_is_left_alone(
    work: Work, config: TrainJobConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serving(monkeypatch, tmp_path) as server:
        server.put(manifest(work, config), TRAINING)
        with pytest.raises(InputError, match=f"under way .*kubectl -n team delete trainjob {NAME}"):
            run()
    assert not server.deleted


def test_failure_says_where_the_reason_is_and_leaves_the_pods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failed = ended("Failed", "FailedJobs", "jobset failed (first failed job: node-0)")
    with (
        serving(monkeypatch, tmp_path, KubernetesServer((TRAINING, failed))) as server,
        pytest.raises(InputError, match=rf"FailedJobs: .*node-0.*kubectl -n team logs -l \S+={NAME}"),
    ):
        run()
    assert list(server.jobs) == [NAME]


def test_trainjob_that_somebody_deletes_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(monkeypatch, tmp_path, KubernetesServer((TRAINING,))) as server:

        def deletes(request: web.Request) -> web.Response | None:
            if "watch" in request.query:
                server._loop.call_later(0.05, lambda: server._change("DELETED", server.jobs[NAME]))
            return None

        server.refuses = deletes
        with pytest.raises(InputError, match="was deleted while it ran; start again"):
            run()


def test_result_that_cannot_be_read_leaves_the_complete_trainjob(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> None:
        raise OSError("S3 is away")

    with serving(monkeypatch, tmp_path) as server, pytest.raises(OSError, match="S3 is away"):
        run(read=broken)
    assert list(server.jobs) == [NAME]


DENIED = (
    'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: spec.RuntimeRef: Invalid value:'
    ' {"name":"torch-distributed"}: clustertrainingruntimes.trainer.kubeflow.org "torch-distributed" not found'
)
FORBIDDEN = 'trainjobs.trainer.kubeflow.org is forbidden: User "me" cannot create resource "trainjobs"'
QUOTA = 'trainjobs.trainer.kubeflow.org "x" is forbidden: exceeded quota: few, requested: count=1, used: count=1'


@pytest.mark.parametrize(
    ("answer", "way_out"),
    [
        (lambda: web.Response(status=404, text="404 page not found\n"), "install Kubeflow Trainer 2.2 or newer"),
        (lambda: status(404, 'namespaces "team" not found'), "make the namespace team"),
        (lambda: status(400, 'strict decoding error: unknown field "spec.runtimePatches"'), "too old; install 2.2"),
        (lambda: status(401, "Unauthorized"), "look at its token"),
        (lambda: status(403, FORBIDDEN), r"create, list, watch and delete trainjobs\.trainer\.kubeflow\.org in team"),
        (lambda: status(403, QUOTA), "exceeded quota: few.*have the quota raised"),
        (lambda: status(403, DENIED), "set dpo.trainjob.runtime to one that 'kubectl get clustertrainingruntimes'"),
        (lambda: status(422, "spec.trainer.env: Too many"), "spec.trainer.env: Too many; mend"),
        (lambda: status(500, "failed calling webhook: connection refused"), "failed calling webhook"),
    ],
)
def test_refusal_names_the_way_out(
    answer: Callable[[], web.Response], way_out: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (
        serving(monkeypatch, tmp_path, KubernetesServer(refuses=lambda request: answer())),
        pytest.raises(InputError, match=way_out) as raised,
    ):
        run()
    assert "\n" not in str(raised.value)


def test_trainjob_that_may_not_be_watched_is_not_left_running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = KubernetesServer((), lambda r: status(403, "cannot watch") if "watch" in r.query else None)
    with serving(monkeypatch, tmp_path, server), pytest.raises(InputError, match="cannot watch; let the pod's"):
        run()
    assert server.deleted == [NAME]


def test_trainjob_that_cannot_be_taken_away_takes_no_result_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = KubernetesServer(refuses=lambda r: status(403, "cannot delete") if r.method == "DELETE" else None)
    with serving(monkeypatch, tmp_path, server):
        run()
    assert f"kubectl -n team delete trainjob {NAME}" in caplog.text


def test_pod_that_is_told_to_go_takes_its_trainjob_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(monkeypatch, tmp_path, KubernetesServer((TRAINING,))) as server, started(server) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) != 0
    assert server.deleted == [NAME]


def test_pod_that_is_killed_leaves_it_to_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(monkeypatch, tmp_path, KubernetesServer((TRAINING,))) as server:
        with started(server) as process:
            process.kill()
            process.wait(20)
        assert list(server.jobs) == [NAME]
        with started(server) as process:
            server._loop.call_soon_threadsafe(
                lambda: server._change("MODIFIED", {**server.jobs[NAME], "status": COMPLETE})
            )
            assert process.communicate(timeout=20)[0] == "read\n"
    assert len(server.made) == 1
    assert server.deleted == [NAME]


@contextmanager
def started(server: KubernetesServer) -> Iterator["subprocess.Popen[str]"]:
    """A process of its own that launches the work, from when it watches."""
    before = server.asked.count("WATCH")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", HERE], env=env, stdout=subprocess.PIPE, text=True)
    try:
        ends = time.monotonic() + 30
        while server.asked.count("WATCH") == before and time.monotonic() < ends:
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()

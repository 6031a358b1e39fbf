"""Real servers, started as the chart starts them: who is let in, and by which names they answer."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.helm import Object, needs_helm, render
from tests.s3_server import free_ports

pytestmark = [needs_helm, pytest.mark.slow]
KEYS = {"AWS_ACCESS_KEY_ID": "ours", "AWS_SECRET_ACCESS_KEY": "a-long-secret"}
API = "/api/2.0/mlflow/experiments/get?experiment_id=0"


def container(name: str) -> Object:
    """The only container of a workload."""
    kinds = ("Deployment", "StatefulSet")
    (found,) = [each for each in render() if each["kind"] in kinds and each["metadata"]["name"] == name]
    (only,) = found["spec"]["template"]["spec"]["containers"]
    return dict(only)


@contextmanager
def running(argv: list[str], port: int, folder: Path) -> Iterator[None]:
    """A server from when it answers /healthz or /health until the end of the block."""
    environment = {
        **os.environ,
        **KEYS,
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(argv, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(port)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(port: int) -> None:
    end = time.monotonic() + 120
    while 200 not in (ask(port, "/healthz"), ask(port, "/health")):
        assert time.monotonic() < end, "it did not start"
        time.sleep(0.5)


def ask(port: int, path: str, host: str = "localhost") -> int:
    """The status of an answer; 0 where there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SeaweedFS by the arguments of the chart, on other ports, after the hook that follows its start."""
    folder, ports = tmp_path_factory.mktemp("weed"), free_ports(5)
    master, volume, filer, port, metrics = ports
    given = container("rlhi-seaweedfs")
    argv = [argument.replace("-dir=/data", f"-dir={folder}") for argument in (*given["command"], *given["args"])]
    argv += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={port}"]
    hook = given["lifecycle"]["postStart"]["exec"]["command"]
    with running([*argv, f"-metricsPort={metrics}"], port, folder):
        path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        hook = [word.replace("127.0.0.1:9333", f"127.0.0.1:{master}") for word in hook]
        subprocess.run(hook, check=True, env=path, timeout=120, capture_output=True)
        yield f"http://127.0.0.1:{port}"


def store(endpoint: str, secret: str) -> Any:
    keys = {"aws_access_key_id": KEYS["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": secret}
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)


def test_seaweedfs_has_the_bucket_and_takes_the_keys_of_its_secret(s3: str) -> None:
    client = store(s3, KEYS["AWS_SECRET_ACCESS_KEY"])
    client.put_object(Bucket="rlhi", Key="a", Body=b"kept")
    assert client.get_object(Bucket="rlhi", Key="a")["Body"].read() == b"kept"


def test_seaweedfs_refuses_a_wrong_key_and_none(s3: str) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        store(s3, "another").list_objects_v2(Bucket="rlhi")
    assert ask(int(s3.rpartition(":")[2]), "/rlhi") == 403


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """MLflow by the arguments of the chart, but on a database and a disk of this machine; its port."""
    folder, (port,) = tmp_path_factory.mktemp("mlflow"), free_ports(1)
    given = container("rlhi-mlflow")
    ours = {
        "--port": port,
        "--backend-store-uri": f"sqlite:///{folder}/db",
        "--artifacts-destination": folder,
        "--workers": 1,
    }
    told = [argument for argument in given["args"] if argument.partition("=")[0] not in ours]
    argv = [sys.executable, "-m", *given["command"], *told, *(f"{name}={value}" for name, value in ours.items())]
    with running(argv, port, folder):
        yield port


@pytest.mark.parametrize("host", ["rlhi-mlflow:5000", "rlhi-mlflow.ml.svc.cluster.local:5000", "localhost:8080"])
def test_mlflow_answers_by_the_names_of_its_service_and_to_a_forwarded_port(mlflow: int, host: str) -> None:
    assert ask(mlflow, API, host) == 200


def test_mlflow_refuses_other_names_which_probes_do_not_show(mlflow: int) -> None:
    assert ask(mlflow, API, "elsewhere.test") == 403
    assert ask(mlflow, "/health", "elsewhere.test") == 200

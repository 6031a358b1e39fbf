import json
from dataclasses import replace
from typing import Any

import pytest

from rlhi.config import parse
from rlhi.dpo.launch import Work, processes
from rlhi.dpo.trainjob.config import Scratch, TrainJobConfig
from rlhi.dpo.trainjob.manifest import manifest
from rlhi.errors import InputError
from tests.kubernetes_server import invalid

WORK = Work("s3://bucket/job", "0123456789abcdef", nodes=2, processes=8)
ON_SPOT = parse(
    TrainJobConfig,
    {
        "resources": {"nvidia.com/gpu": 8, "memory": "256Gi"},
        "secrets": {"AWS_SECRET_ACCESS_KEY": "s3/secret-key"},
        "service_account": "trainer",
        "node_selector": {"pool": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu"}, {"key": "spot", "value": "yes", "effect": "NoSchedule"}],
        "queue": "team-queue",
        "scratch": {"size": "500Gi", "storage_class": "fast"},
    },
    "dpo.trainjob",
)


@pytest.mark.parametrize(("work", "config"), [(WORK, ON_SPOT), (replace(WORK, processes=1), TrainJobConfig())])
def test_trainjob_is_what_the_published_definition_takes(work: Work, config: TrainJobConfig) -> None:
    assert invalid(manifest(work, config)) is None


def test_trainjob_asks_for_what_is_set() -> None:
    spec = manifest(WORK, ON_SPOT)["spec"]
    trainer, patch = spec["trainer"], spec["runtimePatches"][0]
    job = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    pod = job["template"]["spec"]["template"]["spec"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 8)
    assert trainer["command"] == ["torchrun", "-m", "rlhi.dpo.work", "s3://bucket/job"]
    assert trainer["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": "8", "memory": "256Gi"}
    assert (job["name"], pod["containers"][0]["name"]) == ("node", "node")
    assert pod["nodeSelector"] == {"pool": "h100"}
    assert pod["serviceAccountName"] == "trainer"
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists"},
        {"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
    ]


@pytest.mark.parametrize(
    ("kind", "volume"),
    [
        (None, {"emptyDir": {"sizeLimit": "9Gi"}}),
        (
            "fast",
            {
                "ephemeral": {
                    "volumeClaimTemplate": {
                        "spec": {
                            "accessModes": ["ReadWriteOnce"],
                            "storageClassName": "fast",
                            "resources": {"requests": {"storage": "9Gi"}},
                        }
                    }
                }
            },
        ),
    ],
)
def test_node_has_a_disk_that_it_may_write_to_for_its_models(kind: str | None, volume: dict[str, Any]) -> None:
    config = TrainJobConfig(scratch=Scratch(size="9Gi", storage_class=kind))
    made = manifest(replace(WORK, processes=1), config)
    assert invalid(made) is None
    env = {each["name"]: each["value"] for each in made["spec"]["trainer"]["env"]}
    assert (env["HF_HOME"], env["RLHI_CACHE"]) == ("/scratch/huggingface", "/scratch/rlhi")
    (job,) = made["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "scratch", **volume}]
    assert pod["containers"][0]["volumeMounts"] == [{"name": "scratch", "mountPath": "/scratch"}]
    assert pod["securityContext"]["fsGroup"] == 65532


def test_secrets_are_named_and_other_settings_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, f"value of {name}")
    env = manifest(WORK, ON_SPOT)["spec"]["trainer"]["env"]
    assert {"name": "AWS_ENDPOINT_URL", "value": "value of AWS_ENDPOINT_URL"} in env
    secret = {"secretKeyRef": {"name": "s3", "key": "secret-key"}}
    assert {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": secret} in env
    assert "value of AWS_S" not in json.dumps(env)
    assert "value of HF" not in json.dumps(env)


def test_labels_name_the_run_the_queue_and_who_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_RUN_ID", "6e5f")
    assert manifest(WORK, ON_SPOT)["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "rlhi",
        "pipeline/runid": "6e5f",
        "kueue.x-k8s.io/queue-name": "team-queue",
    }


def test_secret_in_the_place_of_its_name_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match=r"trainjob\.secrets\.HF_TOKEN: not secret/key") as raised:
        parse(TrainJobConfig, {"secrets": {"HF_TOKEN": "hf_AbCdEf"}}, "dpo.trainjob")
    assert "AbCdEf" not in str(raised.value)


def test_node_has_a_process_for_each_gpu_or_one() -> None:
    assert processes(None, 2, ON_SPOT) == 8
    assert processes(None, 2, TrainJobConfig()) == 1
    assert processes(3, 2, ON_SPOT) == 3

"""The `TrainJob` of one training, as plain values."""

import json
import os
from typing import TYPE_CHECKING, Any

from rlhi.config import digest
from rlhi.dpo.trainjob.config import Scratch, Toleration, TrainJobConfig
from rlhi.images import image

if TYPE_CHECKING:
    from rlhi.dpo.launch import Work

GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
SPEC = "rlhi/spec"  # annotation: webhooks add to a spec, so two of them cannot be compared
GROUP_ID = 65532  # that the image runs as, and so that the volumes must belong to
NODE = "node"  # the runtime's job and its container
# what the nodes are told as this process was; keys and tokens are no part of it
PASSED_ON = (
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "RLHI_CHECKPOINTS",
    "RLHI_S3_SSE",
    "RLHI_S3_SSE_KMS_KEY_ID",
)


def manifest(work: "Work", config: TrainJobConfig) -> dict[str, Any]:
    """What is asked of Kubernetes. The same work has the same name, and another spec another annotation.

    ``RLHI_RUN_ID`` (the run of the pipeline) becomes KFP's own label, by which all of a run is found.
    """
    spec = {
        "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": config.runtime},
        "trainer": _trainer(work, config),
        "runtimePatches": _patches(work, config),
    }
    labels = {
        "app.kubernetes.io/managed-by": "rlhi",
        "pipeline/runid": os.environ.get("RLHI_RUN_ID"),
        "kueue.x-k8s.io/queue-name": config.queue,
    }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": f"rlhi-dpo-{work.fingerprint}",
            "labels": _set(labels),
            "annotations": {SPEC: digest(json.dumps(spec, sort_keys=True))},
        },
        "spec": spec,
    }


def _trainer(work: "Work", config: TrainJobConfig) -> dict[str, Any]:
    """Trainer's torch plugin gives torchrun the nodes, their ranks and where they meet, as ``PET_*`` variables.

    Requests are given beside limits: without them some versions of it take one process.
    """
    amounts = {name: str(amount) for name, amount in config.resources.items()}
    told = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)} | _caches(config.scratch)
    named = [{"name": name, "value": value} for name, value in told.items()]
    return {
        "image": image("train"),
        "command": ["torchrun", "-m", "rlhi.dpo.work", work.job],
        "numNodes": work.nodes,
        "numProcPerNode": work.processes,
        **({"resourcesPerNode": {"limits": amounts, "requests": amounts}} if amounts else {}),
        "env": named + [_secret(name, place) for name, place in config.secrets.items()],
    }


def _caches(disk: Scratch | None) -> dict[str, str]:
    """Where models are fetched to, on the disk that is there for it."""
    if disk is None:
        return {}
    return {"HF_HOME": f"{disk.mount}/huggingface", "RLHI_CACHE": f"{disk.mount}/rlhi", "TMPDIR": disk.mount}


def _secret(variable: str, place: str) -> dict[str, Any]:
    name, key = place.split("/")
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def _patches(work: "Work", config: TrainJobConfig) -> list[dict[str, Any]]:
    """Where the pods go. Variables are no part of it: Trainer takes those of the container ``node`` above only."""
    pod: dict[str, Any] = _set(
        {
            "serviceAccountName": config.service_account,
            "nodeSelector": config.node_selector or None,
            "tolerations": [_toleration(each) for each in config.tolerations] or None,
        }
    )
    volumes = {}
    if work.processes > 1:  # NCCL's, between the GPUs of a node; a container has 64 MB without it
        volumes["/dev/shm"] = {"name": "shm", "emptyDir": {"medium": "Memory"}}  # noqa: S108
    if config.scratch is not None:
        volumes[config.scratch.mount] = {"name": "scratch", **_volume(config.scratch)}
        pod["securityContext"] = {"fsGroup": GROUP_ID, "fsGroupChangePolicy": "OnRootMismatch"}
    if volumes:
        mounts = [{"name": volume["name"], "mountPath": place} for place, volume in volumes.items()]
        pod |= {"volumes": [*volumes.values()], "containers": [{"name": NODE, "volumeMounts": mounts}]}
    job = {"name": NODE, "template": {"spec": {"template": {"spec": pod}}}}
    patch = {"manager": "rlhi", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}}}
    return [patch] if pod else []


def _volume(disk: Scratch) -> dict[str, Any]:
    if disk.storage_class is None:
        return {"emptyDir": {"sizeLimit": disk.size}}
    asked = {"accessModes": ["ReadWriteOnce"], "storageClassName": disk.storage_class}
    claim = {"spec": {**asked, "resources": {"requests": {"storage": disk.size}}}}
    return {"ephemeral": {"volumeClaimTemplate": claim}}


def _toleration(each: Toleration) -> dict[str, Any]:
    operator = "Exists" if each.value is None else "Equal"
    return _set({"key": each.key, "operator": operator, "value": each.value, "effect": each.effect})


def _set(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}

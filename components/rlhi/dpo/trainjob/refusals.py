"""What an API server says when it refuses, and what is to be done about it."""

import json
import re
from typing import Any

# the status, what is said, the way out; the first that fits
_WAYS: tuple[tuple[int, str, str], ...] = (
    (
        404,
        r"page not found",
        "the cluster has no TrainJobs; install Kubeflow Trainer 2.2 or newer, or train on one node",
    ),
    (404, r"namespaces?\b", "make the namespace {namespace}"),
    (400, r"strict decoding|unknown field", "the cluster's Kubeflow Trainer is too old; install 2.2 or newer"),
    (401, r"", "the pod's service account is not known to the cluster; look at its token"),
    (403, r"exceeded quota", "wait for what runs in {namespace} to end, or have the quota raised"),
    (
        403,
        r"denied the request.*(?i:runtimeRef)",
        "set dpo.trainjob.runtime to one that 'kubectl get clustertrainingruntimes' lists",
    ),
    (403, r"denied the request", "mend what it names, mostly under dpo.trainjob"),
    (
        403,
        r"",
        "let the pod's service account create, list, watch and delete trainjobs.trainer.kubeflow.org in {namespace}",
    ),
    (422, r"", "mend what it names, mostly under dpo.trainjob"),
)


def way_out(error: Any, namespace: str) -> str:
    """One line: what the API server said of the TrainJob, and what to do."""
    said = reason(error)
    for status, words, way in _WAYS:
        if error.status == status and re.search(words, said, re.DOTALL):
            return f"TrainJob: {said}; {way.format(namespace=namespace)}"
    return f"TrainJob: {said} ({error.status})"


def reason(error: Any) -> str:
    """The message of an API error; where it gives none, the first line of what it sent."""
    try:
        return str(json.loads(error.body)["message"]).strip()
    except (KeyError, TypeError, ValueError):
        sent = str(error.body or error.reason or "").strip()
        return sent.splitlines()[0] if sent else "no reason given"

"""Looking things up among the rendered objects of the chart."""

from collections.abc import Iterable
from typing import Any

from tests.helm import Object
from tests.policies import Labels, matches

COMMIT = "b968826d9c46dd6066d109eabc6255188de91218"
WORKLOADS = ("Deployment", "StatefulSet")


def server(**more: Any) -> Object:
    """Values of one vLLM server."""
    return {"enabled": True, "model": f"hf://Qwen/Qwen3-8B@{COMMIT}", **more}


def servers(**named: Object) -> Object:
    """Values with these vLLM servers."""
    return {"vllm": {"servers": named}}


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]


def named(objects: Iterable[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    found = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def template(workload: Object) -> Object:
    """The pod that a workload makes."""
    pod: Object = workload["spec"]["template"]
    return pod


def container(workload: Object) -> Object:
    """The one container of a workload's pod."""
    (only,) = template(workload)["spec"]["containers"]
    one: Object = only
    return one


def labels(workload: Object) -> Labels:
    """The labels of a workload's pods."""
    found: Labels = template(workload)["metadata"]["labels"]
    return found


def behind(objects: Iterable[Object], service: Object) -> list[Object]:
    """The workloads whose pods a Service sends to."""
    selector = {"matchLabels": service["spec"]["selector"]}
    return [one for one in of_kind(objects, *WORKLOADS) if matches(selector, labels(one))]


def port_of(workload: Object, target: str | int) -> int | None:
    """The number of a container's port by its name or number, if it has that port."""
    for one in container(workload)["ports"]:
        if target in (one["name"], one["containerPort"]):
            number: int = one["containerPort"]
            return number
    return None

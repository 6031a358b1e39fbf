"""Rules on how tasks run: images, retries, conditions, accelerators."""

import re
from collections.abc import Iterator

from rlhi.lint.findings import Rule
from rlhi.lint.pipeline import Spec, Task, walk
from rlhi.lint.placeholders import is_placeholder

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
CONDITION = re.compile(r"parameter_values\['([^']+)'\]")
USUAL = 3600.0  # seconds that KFP writes for backoff_max_duration when none is given


def images(root: Task) -> Iterator[tuple[Task, str]]:
    """Images that a registry may change; one that is given at run time is not known here."""
    for task in walk(root):
        image = str(task.container.get("image", ""))
        if image and not is_placeholder(image) and not DIGEST.search(image):
            yield task, f"image {image} has no digest"


def retries(root: Task) -> Iterator[tuple[Task, str]]:
    """Retries that cannot all happen."""
    for task in walk(root):
        policy = task.spec.get("retryPolicy", {})
        count = int(policy.get("maxRetryCount", 0))
        window = _seconds(policy.get("backoffMaxDuration", USUAL))
        limit = _seconds(task.platform.get("activeDeadlineSeconds", 0))
        needed = _pauses(policy, count) + count * limit
        if count and limit and window < needed:
            yield task, f"{count} retries of up to {limit:g} s need {needed:g} s, backoff_max_duration is {window:g} s"
        elif count and not limit and window <= USUAL:
            yield task, f"no retry starts later than {window:g} s after the first attempt began"
        elif count and window < needed:
            yield (
                task,
                f"the pauses before {count} retries add up to {needed:g} s, backoff_max_duration is {window:g} s",
            )


def _pauses(policy: Spec, count: int) -> float:
    first, factor = _seconds(policy.get("backoffDuration", 0)), float(policy.get("backoffFactor", 2.0))
    return sum(first * factor**i for i in range(min(count, 64)))


def _seconds(duration: str | float) -> float:
    return float(str(duration).removesuffix("s") or 0)


def conditions(root: Task) -> Iterator[tuple[Task, str]]:
    """Conditions on a task's named output that KFP's local runner cannot read where they stand."""
    for task in walk(root):
        for name in CONDITION.findall(task.spec.get("triggerPolicy", {}).get("condition", "")):
            source = task.spec.get("inputs", {}).get("parameters", {}).get(name, {}).get("taskOutputParameter", {})
            if source and source["outputParameterKey"] != "Output":
                yield task, f"depends on output {source['outputParameterKey']} of {source['producerTask']} directly"


def accelerators(root: Task) -> Iterator[tuple[Task, str]]:
    """Tasks on accelerators that tainted nodes turn away."""
    for task in walk(root):
        asked = task.container.get("resources", {}).get("accelerator", {})
        kind = asked.get("resourceType") or asked.get("type")
        none = str(asked.get("resourceCount") or asked.get("count") or "1") == "0"
        if kind and not none and not task.platform.get("tolerations"):
            yield task, f"asks for {'an accelerator' if is_placeholder(kind) else kind} and tolerates no taint"


RULES = (
    Rule(
        "image-digest",
        "A tag can be moved: pods of one run may run different code, and KFP's cache, whose key holds the image's name,"
        " takes results of the old image for those of the new.",
        "name it by digest: registry/name@sha256:… (for rlhi's own: RLHI_IMAGE_CPU, RLHI_IMAGE_TRAIN)",
        images,
    ),
    Rule(
        "retry-window",
        "set_retry gives up backoff_max_duration after the first attempt began, and KFP writes 3600 s where none is"
        " given: a task that runs longer than that is never tried again.",
        "give set_retry a backoff_max_duration that all attempts and pauses fit into, for instance '604800s'",
        retries,
    ),
    Rule(
        "bare-condition",
        "A dsl.If on a named output of a task is skipped without a word by KFP's local runner, and the run succeeds.",
        "add a dsl.Else, or put the condition into a nested pipeline that takes the value as a parameter",
        conditions,
    ),
    Rule(
        "gpu-toleration",
        "Node pools with accelerators are tainted nearly everywhere: without a toleration the pod stays pending for"
        " ever. Where the cluster adds one itself (Kueue's flavors, GKE), ignore this rule.",
        "kubernetes.add_toleration(task, key='nvidia.com/gpu', operator='Exists'), or a profile with tolerations",
        accelerators,
    ),
)

"""Makes the `TrainJob` of a training, or adopts the one that is under way, waits for it and takes it away.

Its name comes of the work's fingerprint: a pod that starts again after the one before was killed finds what that one
made. How it ends:

| what happens | the TrainJob |
|---|---|
| it completes | is deleted once its result was read; a pod that dies in between finds it complete |
| it fails | stays, for the logs of its pods; the next start of the same work replaces it |
| this pod is told to go (SIGTERM, Ctrl-C), or may not watch | is deleted; the next one goes on from a checkpoint |
| this pod is killed, or loses the API server | goes on; the next start adopts it |
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlhi.dpo.trainjob.cluster import NoAnswerError, TrainJobs, connect
from rlhi.dpo.trainjob.config import TrainJobConfig
from rlhi.dpo.trainjob.manifest import NODE, SPEC, manifest
from rlhi.errors import InputError

if TYPE_CHECKING:
    from rlhi.dpo.launch import Work

State = Mapping[str, Any]
log = logging.getLogger("rlhi")


@contextmanager
def trained(work: "Work", config: TrainJobConfig) -> Iterator[None]:
    """Does the work on several nodes; in the body it is done.

    Raises:
        InputError: refused by the cluster, failed, deleted by another, or of a name that other work has.
    """
    jobs, body = connect(), manifest(work, config)
    with _ended_with_us(jobs, body):
        _make(jobs, body)
        _wait(jobs, body["metadata"]["name"])
    yield
    _delete(jobs, body)


@contextmanager
def _ended_with_us(jobs: TrainJobs, body: State) -> Iterator[None]:
    """Who stops waiting for it, whatever the cause, leaves none that runs; but for a server that cannot be asked."""
    try:
        yield
    except NoAnswerError:
        raise
    except BaseException:
        _delete(jobs, body)
        raise


def _delete(jobs: TrainJobs, body: State) -> None:
    """Deletes the TrainJob of the work, unless it failed. What is in the way is told: the work has ended already."""
    name = body["metadata"]["name"]
    try:
        found = jobs.find(name)
        if found is not None and _spec(found) == _spec(body) and not _condition(found, "Failed"):
            jobs.delete(found)
    except InputError as error:
        log.warning("%s; 'kubectl -n %s delete trainjob %s' takes it away", error, jobs.namespace, name)


def _make(jobs: TrainJobs, body: dict[str, Any]) -> None:
    name = body["metadata"]["name"]
    where = f"TrainJob {jobs.namespace}/{name}"
    while not jobs.create(body):
        found = jobs.find(name)
        if found is None:  # gone in between
            continue
        if not _going(found) and _spec(found) == _spec(body) and not _condition(found, "Failed"):
            log.info("%s: adopted, it was made at %s", where, found["metadata"].get("creationTimestamp"))
            return
        if not _going(found) and not _ended(found):
            raise InputError(
                f"{where}: is under way for another job folder or with other settings; wait for it to end, or"
                f" 'kubectl -n {jobs.namespace} delete trainjob {name}'"
            )
        log.info("%s: the one of before goes first", where)
        jobs.delete(found)
        _wait_until_gone(jobs, found)


def _wait_until_gone(jobs: TrainJobs, found: State) -> None:
    for state in jobs.states(found["metadata"]["name"]):
        if state is None or state["metadata"]["uid"] != found["metadata"]["uid"]:
            return


def _wait(jobs: TrainJobs, name: str) -> None:
    """Waits until it is complete, and tells how far it is."""
    where, told = f"TrainJob {jobs.namespace}/{name}", ""
    for state in jobs.states(name):
        if state is None:
            raise InputError(f"{where}: was deleted while it ran; start again, it goes on from its last checkpoint")
        if (now := _told(state)) != told:
            log.info("%s: %s", where, now)
            told = now
        if _condition(state, "Complete"):
            return
        if failed := _condition(state, "Failed"):
            raise InputError(_failure(jobs.namespace, name, failed))


def _failure(namespace: str, name: str, failed: State) -> str:
    pods = f"-l jobset.sigs.k8s.io/jobset-name={name}"
    return (
        f"TrainJob {namespace}/{name}: failed ({failed.get('reason')}: {failed.get('message')}); why, its pods say:"
        f" 'kubectl -n {namespace} logs {pods} --prefix --tail=50'; start again, it goes on from its last checkpoint"
    )


def _told(state: State) -> str:
    """How far it is, in words."""
    status = state.get("status", {})
    for kind, words in (("Complete", "complete"), ("Failed", "failed"), ("Suspended", "waits to be admitted")):
        if _condition(state, kind):
            return words
    done = status.get("trainerStatus", {}).get("progressPercentage")
    if done is not None:
        return f"{done}% done"
    node = next((each for each in status.get("jobsStatus", []) if each["name"] == NODE), None)
    if node is None:
        return "made"
    return "trains on all nodes" if node["ready"] else "its pods start"


def _condition(state: State, kind: str) -> State | None:
    conditions = state.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind and each["status"] == "True"), None)


def _ended(state: State) -> bool:
    return any(_condition(state, kind) for kind in ("Complete", "Failed"))


def _spec(state: State) -> str | None:
    found: str | None = state["metadata"].get("annotations", {}).get(SPEC)
    return found


def _going(state: State) -> bool:
    return "deletionTimestamp" in state["metadata"]

"""A fake of the Kubernetes API for TrainJobs, on loopback: keeps them, tells who watches, plays their controller."""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob

from tests.chat_server import stop

Job = dict[str, Any]
Refusal = Callable[[web.Request], web.Response | None]
ROUTE = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs"
NODE = {"name": "node", "ready": 0, "succeeded": 0, "failed": 0, "active": 1, "suspended": 0}
STARTING = {"jobsStatus": [NODE]}
TRAINING = {"jobsStatus": [{**NODE, "ready": 1}]}


def ended(kind: str, reason: str = "AllJobsCompleted", message: str = "jobset completed") -> Job:
    """A status with the condition ``kind``: Complete or Failed."""
    return {**TRAINING, "conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]}


COMPLETE = ended("Complete")


def status(code: int, message: str) -> web.Response:
    """An answer as an API server refuses."""
    return web.json_response({"kind": "Status", "message": message, "code": code}, status=code)


class KubernetesServer:
    """The TrainJobs of the namespace ``team``. Each that is made goes through ``statuses``, a few milliseconds apart.

    ``refuses`` may answer a request in the server's place. A watch breaks off after ``cut`` events, without an end of
    its body; what is older than the last ``kept`` changes is forgotten. ``made`` and ``deleted`` are names, in order.
    """

    def __init__(
        self,
        statuses: Sequence[Job] = (STARTING, TRAINING, COMPLETE),
        refuses: Refusal = lambda request: None,
        cut: int | None = None,
        kept: int = 1000,
    ) -> None:
        self.jobs: dict[str, Job] = {}
        self.made: list[Job] = []
        self.deleted: list[str] = []
        self.asked: list[str] = []
        self.lingers = 0.0  # seconds that one which is deleted is still there
        self.statuses, self.refuses, self._cut, self._kept = statuses, refuses, cut, kept
        self._changes: list[tuple[int, str, Job]] = []
        self._version = 100
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "KubernetesServer":
        self._thread.start()
        self._runner = self._wait(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._stop(), self._loop, self._thread)

    def kubeconfig(self, folder: Path) -> Path:
        """A file that names this server and the namespace."""
        url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        named = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "team"}}],
            "clusters": [{"name": "here", "cluster": {"server": url}}],
            "users": [{"name": "me", "user": {"token": "none"}}],
        }
        path = folder / "kubeconfig.json"
        path.write_text(json.dumps(named))
        return path

    def put(self, body: Job, state: Job) -> None:
        """A TrainJob that somebody else has made."""
        self._wait(self._put(body, state))

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _start(self) -> web.AppRunner:
        app = web.Application(middlewares=[self._refuse])
        app.router.add_post(ROUTE, self._create)
        app.router.add_get(ROUTE, self._list)
        app.router.add_delete(ROUTE + "/{name}", self._delete)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()

    @web.middleware
    async def _refuse(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        self.asked.append("WATCH" if "watch" in request.query else request.method)
        answer: web.StreamResponse = self.refuses(request) or await handler(request)
        return answer

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["metadata"]["name"]
        if name in self.jobs:
            return status(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        if wrong := invalid(body):
            return status(400 if "unknown" in wrong else 422, wrong)
        self.made.append(body)
        await self._put(body, {})
        task = asyncio.ensure_future(self._control(self.jobs[name]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return web.json_response(self.jobs[name], status=201)

    async def _put(self, body: Job, state: Job) -> None:
        meta = {"uid": f"uid-{self._version}", "creationTimestamp": "2026-11-26T10:00:00Z", **body["metadata"]}
        self._change("ADDED", {**body, "metadata": meta, "status": state})

    async def _control(self, job: Job) -> None:
        """What Trainer does: a status after the other."""
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        for each in self.statuses:
            await asyncio.sleep(0.02)
            now = self.jobs.get(name)
            if now is None or now["metadata"]["uid"] != uid:
                return
            self._change("MODIFIED", {**now, "status": each})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        field, name = request.query["fieldSelector"].split("=")
        assert field == "metadata.name"
        if request.query.get("watch"):
            return await self._watch(request, name)
        items = [self.jobs[name]] if name in self.jobs else []
        return web.json_response({"items": items, "metadata": {"resourceVersion": str(self._version)}})

    async def _watch(self, request: web.Request, name: str) -> web.StreamResponse:
        since, told = int(request.query["resourceVersion"]), 0
        response = web.StreamResponse()
        await response.prepare(request)
        if self._changes and since < self._changes[0][0] - 1:
            await _event(response, "ERROR", {"code": 410, "reason": "Expired", "message": "too old resource version"})
            return response
        ends = self._loop.time() + float(request.query["timeoutSeconds"])
        while self._loop.time() < ends and request.transport is not None:
            for version, kind, job in [each for each in self._changes if each[0] > since]:
                since = version
                if job["metadata"]["name"] == name:
                    await _event(response, kind, job)
                    told += 1
                if told == self._cut:
                    request.transport.abort()
                    return response
            await asyncio.sleep(0.005)
        return response

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.jobs:
            return status(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        job = self.jobs[name]
        if (await request.json())["preconditions"]["uid"] != job["metadata"]["uid"]:
            return status(409, "the UID in the precondition does not match the UID in record")
        self.deleted.append(name)
        if self.lingers:
            meta = {**job["metadata"], "deletionTimestamp": "2026-11-26T11:00:00Z"}
            self._change("MODIFIED", {**job, "metadata": meta})
            self._loop.call_later(self.lingers, self._change, "DELETED", self.jobs[name])
        else:
            self._change("DELETED", job)
        return web.json_response({"kind": "Status", "status": "Success"})

    def _change(self, kind: str, job: Job) -> None:
        self._version += 1
        name = job["metadata"]["name"]
        job = {**job, "metadata": {**job["metadata"], "resourceVersion": str(self._version)}}
        if kind == "DELETED":
            del self.jobs[name]
        else:
            self.jobs[name] = job
        self._changes = [*self._changes, (self._version, kind, job)][-self._kept :]


def invalid(body: Job) -> str | None:
    """What a server says of a TrainJob that is none, by the published models and the rules of the definition."""
    read = TrainerV1alpha1TrainJob.from_dict(body)
    if read is None or read.to_dict() != body:
        return "strict decoding error: unknown field"
    name = body["metadata"]["name"]
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > 63:
        return "metadata.name must match RFC 1035 DNS label format"
    for patch in body["spec"]["runtimePatches"]:
        for job in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
            for container in job["template"]["spec"]["template"]["spec"].get("containers", []):
                if container["name"] == "node" and "env" in container:
                    return "must not have envs for the node container"
    return None


async def _event(response: web.StreamResponse, kind: str, job: Job) -> None:
    await response.write(json.dumps({"type": kind, "object": job}).encode() + b"\n")

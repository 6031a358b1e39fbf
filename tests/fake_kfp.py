"""A test double of a KFP server: the part of its v2beta1 API that clients of pipelines, runs and schedules use.

It is no KFP: nothing runs. It keeps what it is sent, refuses what the published models of ``kfp_server_api`` do not
know, and plays the states of a run, one at each look. Real HTTP on a free port of the loopback.
"""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import kfp_server_api
import yaml
from aiohttp import web

from tests.chat_server import stop

Body = dict[str, Any]
API = "/apis/v2beta1"
SUCCESS = ("PENDING", "RUNNING", "SUCCEEDED")
KINDS = {
    "experiments": ("experiment_id", "V2beta1Experiment", "experiments"),
    "pipelines": ("pipeline_id", "V2beta1Pipeline", "pipelines"),
    "runs": ("run_id", "V2beta1Run", "runs"),
    "recurringruns": ("recurring_run_id", "V2beta1RecurringRun", "recurringRuns"),
}


class FakeKfp:
    """The server. ``refuses`` may answer in its place; ``version`` is what it says it is; ``asked`` is what came.

    A run goes through ``states``; its tasks are those that ``tasks`` gives for each state.
    """

    def __init__(
        self,
        states: Sequence[str] = SUCCESS,
        tasks: Callable[[str], Sequence[Body]] = lambda state: (),
        version: str | None = "2.17.0",
    ) -> None:
        self.states, self.tasks, self.version = list(states), tasks, version
        self.token: str | None = None
        self.refuses: Callable[[web.Request], web.Response | None] = lambda request: None
        self.asked: list[str] = []
        self.kept: dict[str, list[Body]] = {kind: [] for kind in (*KINDS, "versions")}
        self._looks = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "FakeKfp":
        self._thread.start()
        self._runner = self._wait(self._start())
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._runner.cleanup(), self._loop, self._thread)

    @property
    def created(self) -> list[str]:
        """What was asked for that makes something."""
        return [each for each in self.asked if not each.startswith("GET")]

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _start(self) -> web.AppRunner:
        app = web.Application(middlewares=[self._guard], client_max_size=32 << 20)
        app.router.add_get(f"{API}/healthz", self._health)
        app.router.add_get("/apis/v1beta1/healthz", self._old_health)
        app.router.add_post(f"{API}/pipelines/upload_version", self._upload)
        app.router.add_get(f"{API}/pipelines/{{id}}/versions", self._versions)
        for kind in KINDS:
            app.router.add_get(f"{API}/{kind}", self._list)
            app.router.add_post(f"{API}/{kind}", self._create)
        app.router.add_get(f"{API}/runs/{{id}}", self._run)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return refusal(401, "Unauthenticated")
        answer: web.StreamResponse = self.refuses(request) or await handler(request)
        return answer

    async def _health(self, _: web.Request) -> web.Response:
        if self.version is not None and self.version.startswith("1."):
            return web.Response(status=404, text="404 page not found")
        return web.json_response({"multi_user": False})

    async def _old_health(self, _: web.Request) -> web.Response:
        said = {"commit_sha": "unknown", "tag_name": self.version, "multi_user": False}
        return web.json_response(said) if self.version else web.Response(status=404, text="Not Found")

    async def _list(self, request: web.Request) -> web.Response:
        kind = request.path.rpartition("/")[2]
        experiment = request.query.get("experiment_id")
        found = [each for each in self.kept[kind] if experiment in (None, each.get("experiment_id"))]
        return _page(KINDS[kind][2], found, request)

    async def _create(self, request: web.Request) -> web.Response:
        kind = request.path.rpartition("/")[2]
        key, model, _ = KINDS[kind]
        body = await request.json()
        if unknown := body.keys() - set(getattr(kfp_server_api, model).attribute_map.values()):
            return refusal(400, f"unknown field {sorted(unknown)[0]}")
        if wrong := self._wrong(kind, body):
            return refusal(*wrong)
        self.kept[kind].append({**body, key: f"{kind}-{len(self.kept[kind]) + 1}"})
        return web.json_response(self.kept[kind][-1])

    def _wrong(self, kind: str, body: Body) -> tuple[int, str] | None:
        """What a server says of a body that it cannot take."""
        if kind == "pipelines":
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", body.get("name", "")):
                return 400, "Invalid input error: pipeline's name must contain only lowercase alphanumeric characters"
            taken = any(each["name"] == body["name"] for each in self.kept[kind])
            return (409, f"Already exist error: {body['name']}") if taken else None
        if kind in ("runs", "recurringruns"):
            named = body.get("pipeline_version_reference", {}).get("pipeline_version_id")
            if named not in {each["pipeline_version_id"] for each in self.kept["versions"]}:
                return 404, "ResourceNotFoundError: PipelineVersion not found"
        if kind == "recurringruns" and len(body["trigger"]["cron_schedule"]["cron"].split()) != 6:
            return 400, "Invalid input error: Schedule cron is not a valid format"
        return None

    async def _upload(self, request: web.Request) -> web.Response:
        pipeline, name = request.query["pipelineid"], request.query["name"]
        if any(each["name"] == name for each in self.kept["versions"]):
            return refusal(409, f"Already exist error: {name}")
        file = (await request.post())["uploadfile"]
        assert isinstance(file, web.FileField)
        text = file.file.read()
        assert next(yaml.load_all(text, Loader=yaml.CSafeLoader))["schemaVersion"] == "2.1.0"
        version = {"pipeline_id": pipeline, "pipeline_version_id": f"versions-{len(self.kept['versions']) + 1}"}
        self.kept["versions"].append({**version, "name": name, "display_name": name})
        return web.json_response(self.kept["versions"][-1])

    async def _versions(self, request: web.Request) -> web.Response:
        found = [each for each in self.kept["versions"] if each["pipeline_id"] == request.match_info["id"]]
        return _page("pipeline_versions", found, request)

    async def _run(self, request: web.Request) -> web.Response:
        run = next(each for each in self.kept["runs"] if each["run_id"] == request.match_info["id"])
        state = self.states[min(self._looks, len(self.states) - 1)]
        self._looks += 1
        return web.json_response({**run, "state": state, "run_details": {"task_details": list(self.tasks(state))}})


def refusal(code: int, message: str) -> web.Response:
    """An answer as a KFP server refuses."""
    return web.json_response({"error": message, "code": code, "message": message, "details": []}, status=code)


def _page(name: str, found: Sequence[Body], request: web.Request) -> web.Response:
    """Those that pass the filter, which knows equal names only; without any, no list at all, as the server has it."""
    for each in json.loads(request.query.get("filter") or '{"predicates": []}')["predicates"]:
        assert each["operation"] in (1, "EQUALS")
        found = [one for one in found if one[each["key"]] == each["stringValue"]]
    return web.json_response({name: list(found), "total_size": len(found)} if found else {})

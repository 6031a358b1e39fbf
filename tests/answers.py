"""A server on loopback that answers as it is told: a registry, MLflow, Kubernetes or a hub of models in small."""

import asyncio
import json
import re
import threading
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.chat_server import stop


class Answers:
    """By pattern of the path, what is answered; the one told last wins. What nobody told of is not found."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._said: list[tuple[str, int, Any]] = []
        self._guards: dict[str, tuple[str, str]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Answers":
        self._thread.start()
        self._runner = self._wait(self._start())
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"
        self.url = f"http://{self.address}"
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._runner.cleanup(), self._loop, self._thread)

    def say(self, path: str, status: int, body: Any = None) -> None:
        """Answers ``path`` so from now on."""
        self._said.append((path, status, body))

    def guard(self, path: str, authorization: str, challenge: str) -> None:
        """Wants an authorization for ``path``."""
        self._guards[path] = (authorization, challenge)

    def kubeconfig(self, folder: Path) -> Path:
        """A file that names this server as a cluster."""
        named = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": "none"}}],
        }
        path = folder / "kubeconfig.json"
        path.write_text(json.dumps(named))
        return path

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path_qs}")
        for path, (authorization, challenge) in self._guards.items():
            if re.fullmatch(path, request.path) and request.headers.get("Authorization") != authorization:
                return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        for path, status, body in reversed(self._said):
            if re.fullmatch(path, request.path):
                return web.json_response(body, status=status)
        return web.json_response({"message": "not found"}, status=404)

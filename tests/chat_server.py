"""A fake of an OpenAI-compatible server, on loopback: it says what it is told to say, and fails as it is told to."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Literal

from aiohttp import web

Fault = Literal["500", "429", "hang", "truncate", "garble"]


class ChatServer:
    """Answers sample k of a request with ``says(body, k)``, unless ``fault(number of the request)`` names a fault.

    ``says`` gives the text or a whole choice. ``bodies`` and ``headers`` are what was sent.
    """

    def __init__(
        self,
        says: Callable[[dict[str, Any], int], str | dict[str, Any]] = lambda body, k: "hello",
        fault: Callable[[int], Fault | web.Response | None] = lambda number: None,
        retry_after: str = "1",
        takes_n: bool = True,
        delay: float = 0.0,
        port: int = 0,
    ) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = self.at_once = 0
        self._says, self._fault, self._retry_after = says, fault, retry_after
        self._takes_n, self._delay, self._port = takes_n, delay, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> "ChatServer":
        self._thread.start()
        self._runner, self._port = self._wait(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _start(self) -> tuple[web.AppRunner, int]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._count)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        await site.start()
        return runner, runner.addresses[0][1]

    async def _count(self, request: web.Request) -> web.StreamResponse:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._answer(request)
        finally:
            self.at_once -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        fault = self._fault(len(self.bodies) - 1)
        if isinstance(fault, web.Response):
            return fault
        if fault == "500":
            return web.Response(status=500, text="out of luck")
        if fault == "429":
            return web.Response(status=429, headers={"Retry-After": self._retry_after})
        if fault == "garble":
            return web.Response(text='{"choices": [{"index": 0, "mess', content_type="application/json")
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "truncate":
            return await _truncated(request)
        await asyncio.sleep(self._delay)
        return web.json_response(self._completion(body))

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        n = body.get("n", 1) if self._takes_n else 1
        choices = [_choice(k, self._says(body, k)) for k in range(n)]
        return {"choices": choices, "usage": {"prompt_tokens": 10, "completion_tokens": 5 * n}}


def _choice(index: int, said: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(said, dict):
        return {"index": index, **said}
    return {"index": index, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}


async def _truncated(request: web.Request) -> web.StreamResponse:
    """A body that ends before its length is reached."""
    response = web.StreamResponse(headers={"Content-Length": "500", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"index": 0')
    with contextlib.suppress(AttributeError):
        request.transport.close()  # type: ignore[union-attr]
    return response

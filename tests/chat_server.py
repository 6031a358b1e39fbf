"""A fake of an OpenAI-compatible server, on loopback: it says what it is told to say, and fails as it is told to."""

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from aiohttp import web

Fault = Literal["500", "429", "hang", "truncate", "garble"]
USAGE = {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}


class ChatServer:
    """Answers sample k of a request with ``says(body, k)``, unless ``fault(number of the request)`` names a fault.

    ``says`` gives the text or a whole choice. ``bodies`` and ``headers`` are what was sent. It tells its models, as a
    sign of life, unless ``lives`` is false.
    """

    route = "/v1/chat/completions"

    def __init__(
        self,
        says: Callable[[dict[str, Any], int], str | dict[str, Any]] = lambda body, k: "hello",
        fault: Callable[[int], Fault | web.Response | None] = lambda number: None,
        retry_after: str = "1",
        takes_n: bool = True,
        delay: float = 0.0,
        port: int = 0,
        lives: bool = True,
    ) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = self.at_once = 0
        self._says, self._fault, self._retry_after = says, fault, retry_after
        self._takes_n, self._delay, self._port, self._lives = takes_n, delay, port, lives
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
        stop(self._runner.cleanup(), self._loop, self._thread)

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _start(self) -> tuple[web.AppRunner, int]:
        app = web.Application()
        app.router.add_post(self.route, self._count)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        await site.start()
        return runner, runner.addresses[0][1]

    async def _models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"data": []}, status=200 if self._lives else 503)

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
        return web.json_response(self.completion(body))

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        n = body.get("n", 1) if self._takes_n else 1
        choices = [_choice(k, self._says(body, k)) for k in range(n)]
        return {"choices": choices, "usage": {**USAGE, "completion_tokens": 5 * n}}


class ClassifyServer(ChatServer):
    """A fake of a vLLM pooling server: ``scores(token ids)`` are a text's logits, behind a sigmoid by default."""

    route = "/classify"

    def __init__(self, scores: Callable[[list[int]], list[float | None]], **how: Any) -> None:
        super().__init__(**how)
        self._scores = scores

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        rows = [self._scores(ids) for ids in body["input"]]
        if body.get("use_activation") is not False:  # null is on, too
            rows = [[one if one is None else 1 / (1 + math.exp(-one)) for one in row] for row in rows]
        data = [{"index": i, "label": None, "probs": row, "num_classes": len(row)} for i, row in enumerate(rows)]
        return {"data": data[::-1], "usage": {"prompt_tokens": sum(map(len, body["input"]))}}


def stop(cleanup: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Ends a server by ``cleanup``, and the loop that it has in a thread of its own."""
    asyncio.run_coroutine_threadsafe(cleanup, loop).result(20)
    # connections that were closed close their sockets a turn of the loop later
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


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

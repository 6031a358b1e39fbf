"""How many requests a second the HTTP engine sends, beside bare aiohttp and beside the openai package.

    python benchmarks/engines_http.py             20,000 requests a round

A server in a process of its own answers every chat completion after 50 ms. The three ways send the same bodies, 256
at a time, each in a process of its own; they take turns, and of each the median round is told, with the CPU time of its
process. Bare aiohttp is what cannot be avoided: send, wait, parse. The engine adds seeds, pacing, retries, counting, a
cap, and a thread that hands over replies.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from rlhi.config import ModelConfig, SamplingConfig, ServerConfig
from rlhi.engine import Request
from rlhi.engine.http import wire
from rlhi.engine.http.engine import HttpEngine
from rlhi.engine.seeds import seed_of
from rlhi.records import Message

AT_ONCE = 256
SECONDS = 0.05
SAMPLING = SamplingConfig()
TEXT = "Name a fruit that keeps for a week, and say in a sentence why you would choose it. " * 6


def main() -> None:
    """Starts the server, runs every way in turn, prints a line each and at last one JSON object."""
    given = _parser().parse_args()
    if given.serve:
        serve()
    elif given.one is not None:
        sys.stdout.write(json.dumps(rate(WAYS[given.one], given.url, given.requests)) + "\n")
    else:
        rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        with _server() as url:
            for _ in range(given.rounds):
                for way, count in zip(WAYS, (given.requests, given.requests, given.requests // 4), strict=True):
                    rounds[way].append(_in_process(way, url, count))
        for way, found in rounds.items():
            shown = ", ".join(f"{each['rps']:,.0f}" for each in found)
            sys.stdout.write(f"{way:<8} requests/s: {shown}; CPU {_median(found, 'cpu_us'):.0f} us a request\n")
        sys.stdout.write(json.dumps({f"{way}_rps": round(_median(own, "rps")) for way, own in rounds.items()}) + "\n")


def serve() -> None:
    """Answers on a free port, whose number it prints first, until it is ended."""
    said = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    body = orjson.dumps({"choices": [said], "usage": {"prompt_tokens": 99, "completion_tokens": 99}})

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        await asyncio.sleep(SECONDS)
        return web.Response(body=body, content_type="application/json")

    async def run() -> None:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        sys.stdout.write(f"{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    asyncio.run(run())


def client(url: str, count: int) -> int:
    """The engine, from plain code."""
    engine = HttpEngine(ModelConfig(id="judge"), ServerConfig(url=url, concurrency=AT_ONCE, logprobs=False))
    rows = [Request(str(i), (Message("user", TEXT),)) for i in range(count)]
    return sum(bool(reply.text) for _, _, reply in engine.stream(rows, SAMPLING, [[0]] * count, 0))


def bare(url: str, count: int) -> int:
    """A loop around aiohttp."""

    async def send(session: aiohttp.ClientSession, bodies: Iterator[dict[str, Any]]) -> int:
        answered = 0
        for body in bodies:
            async with session.post(f"{url}/chat/completions", data=orjson.dumps(body), headers=headers) as response:
                answered += bool(orjson.loads(await response.read())["choices"][0]["message"]["content"])
        return answered

    async def run() -> int:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            bodies = _bodies(count)
            return sum(await asyncio.gather(*(send(session, bodies) for _ in range(AT_ONCE))))

    headers = {"Authorization": "Bearer none", "Content-Type": "application/json"}
    return asyncio.run(run())


def package(url: str, count: int) -> int:
    """The openai package's asynchronous client."""
    import openai

    async def send(asked: Any, bodies: Iterator[dict[str, Any]]) -> int:
        return sum([bool((await asked.create(**body)).choices[0].message.content) for body in bodies])

    async def run() -> int:
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as opened:
            bodies = _bodies(count)
            return sum(await asyncio.gather(*(send(opened.chat.completions, bodies) for _ in range(AT_ONCE))))

    return asyncio.run(run())


WAYS: dict[str, Callable[[str, int], int]] = {"client": client, "aiohttp": bare, "openai": package}


def rate(way: Callable[[str, int], int], url: str, count: int) -> dict[str, float]:
    """Requests a second and CPU time of one, after a few to warm up."""
    way(url, AT_ONCE)
    started, cpu = time.perf_counter(), time.process_time()
    answered = way(url, count)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    if answered != count:
        raise RuntimeError(f"{answered} of {count} answered")
    return {"rps": count / seconds, "cpu_us": 1e6 * cpu / count}


def _bodies(count: int) -> Iterator[dict[str, Any]]:
    for i in range(count):
        message = {"role": "user", "content": TEXT}
        fields = {**wire.sampling_fields(SAMPLING), "seed": seed_of(0, str(i), 0)}
        yield {"model": "judge", "messages": [message], **fields}


@contextmanager
def _server() -> Iterator[str]:
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.terminate()


def _in_process(way: str, url: str, count: int) -> dict[str, float]:
    argv = [sys.executable, __file__, "--one", way, "--url", url, "--requests", str(count)]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _median(found: list[dict[str, float]], name: str) -> float:
    return statistics.median(each[name] for each in found)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--requests", type=int, default=20_000, help="in a round, a quarter for openai [20000]")
    made.add_argument("--rounds", type=int, default=3, help="how often each way runs [3]")
    made.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    made.add_argument("--url", help=argparse.SUPPRESS)
    made.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    main()

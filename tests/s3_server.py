"""A real S3 server on loopback, and a proxy in front of it that fails as it is told to."""

import asyncio
import io
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import boto3
import pytest
from aiohttp import ClientSession, web
from botocore.exceptions import BotoCoreError, ClientError
from multidict import CIMultiDictProxy
from yarl import URL

from tests.chat_server import stop

Fault = Literal[
    "503", "drop", "lose the answer", "no conditions", "501 on conditions", "no encryption", "cut", "slow", "reset"
]

KEPT = ("date", "etag", "content-type", "last-modified", "content-range")
SLOW = 0.3  # seconds


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """SeaweedFS, which takes any key; gives its endpoint."""
    ports = master, volume, filer, port = free_ports(4)
    weed = Path(sys.executable).with_name("weed")
    argv = [str(weed if weed.exists() else shutil.which("weed")), f"-logdir={folder}", "server", f"-dir={folder}"]
    argv += ["-ip=127.0.0.1", "-s3"]
    argv += ["-ip.bind=127.0.0.1", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    argv += [f"-s3.port={port}", "-master.volumeSizeLimitMB=64", "-volume.max=200"]  # a bucket takes seven
    argv += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]  # ports that are the same for all
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait(f"http://127.0.0.1:{port}", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()  # told to end, it takes half a minute
            for used in (*ports, *(each + 10_000 for each in ports)):
                for left in Path("/tmp").glob(f"seaweedfs-*-{used}.sock"):
                    left.unlink()


def free_ports(count: int) -> list[int]:
    """Free ports whose neighbours 10,000 above, where SeaweedFS puts its gRPC, are free too.

    All lie below those that the system gives away by itself. Processes that look at once begin far from each other.
    """
    found: list[int] = []
    for tried in range(10_000):
        port = 11_000 + (os.getpid() * 97 + tried) % 10_000
        if len(found) < count and all(_is_free(each) for each in (port, port + 10_000)):
            found.append(port)
    return found


def client(endpoint: str) -> Any:
    """A client of one's own, past all that is tested."""
    return boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="any", aws_secret_access_key="any", region_name="us-east-1"
    )


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shell would set, for processes that start too."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


class Proxy:
    """Passes on to ``target``, unless ``fault(method, path)`` names a fault; ``seen`` is what was asked.

    ``headers`` are those of each.
    """

    def __init__(self, target: str) -> None:
        self.fault: Callable[[str, str], Fault | None] = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        self.headers: list[CIMultiDictProxy[str]] = []  # of each
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._runner = self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._session.close())
        stop(self._runner.cleanup(), self._loop, self._thread)

    def _do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _start(self) -> web.AppRunner:
        self._session = ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._port = runner.addresses[0][1]
        return runner

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path))
        self.headers.append(request.headers)
        fault = self.fault(request.method, request.path)
        if fault == "503":
            return web.Response(status=503)
        if fault == "slow":
            await asyncio.sleep(SLOW)
        if fault == "reset" and request.transport is not None:
            _reset(request.transport)
        if fault == "drop" and request.transport is not None:
            request.transport.close()
        headers = {name: value for name, value in request.headers.items() if name != "Expect"}
        if fault == "501 on conditions" and "If-None-Match" in headers:
            return web.Response(status=501)
        if fault == "no conditions":
            headers = {name: value for name, value in headers.items() if not name.startswith("If-")}
        if fault == "no encryption":
            headers = {name: value for name, value in headers.items() if "server-side-encryption" not in name.lower()}
        url, body = URL(self._target + request.raw_path, encoded=True), await request.read()
        async with self._session.request(
            request.method, url, headers=headers, data=io.BytesIO(body) if body else None
        ) as answer:
            said = await answer.read()
            names = (*KEPT, "content-length") if request.method == "HEAD" else KEPT
            kept = {name: value for name, value in answer.headers.items() if name.lower() in names}
        if fault == "lose the answer":
            return web.Response(status=503)
        return web.Response(status=answer.status, headers=kept, body=said[: len(said) // 2] if fault == "cut" else said)


def _reset(transport: asyncio.Transport) -> None:
    """Ends a connection as a machine does that knows nothing of it any more."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    """Until something can be written: the server answers before its parts have found each other."""
    tried, until = client(endpoint), time.monotonic() + 120
    while time.monotonic() < until and server.poll() is None:
        with suppress(BotoCoreError, ClientError):
            tried.create_bucket(Bucket="ready")
        try:
            tried.put_object(Bucket="ready", Key="x", Body=b"x")
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"{endpoint}: no S3 server is ready; the process ended with {server.poll()}")

"""Asks a server until it answers.

Tried again, after a growing and jittered while or the one that the server names: timeouts, broken connections, the
statuses 408, 409, 429 and 5xx, and bodies that are cut off or no answer. Any other refusal is the user's to mend and
ends the stage at once, in the server's words. A request that is given up after all its tries does not: the others are
answered first. It is given up after its deadline, or where the server has answered nothing for long; whether that is
the end of the stage hangs on what else there is to ask and on whether the server `lives`.
"""

import asyncio
import logging
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from rlhi.config import ServerConfig
from rlhi.engine import tally
from rlhi.engine.http import wire
from rlhi.engine.http.budget import Budget, Load
from rlhi.engine.http.pace import Pace
from rlhi.engine.http.secret import Key
from rlhi.errors import InputError

log = logging.getLogger("rlhi")
A = TypeVar("A")
AGAIN = frozenset({408, 409, 429})
LONGEST_WAIT = 30.0  # seconds
WORRY = 5.0  # seconds of silence that are worth a warning
ALIVE_WITHIN = 10.0  # seconds for the list of its models
FILTERED = "content_filter"
HINTS = {
    401: "put the key into ${env}, or name its file in engine.server.api_key_file",
    403: "the key in ${env} may not use this model",
    400: "change the setting that it names: engine.server.choice=text, .logprobs=false, .max_n=1 or .extra",
    404: "is engine.server.url right, up to /v1, and engine.model.id a model of this server?",
}


class GivenUpError(Exception):
    """All tries of one request are used up, at last for ``cause``; the message is a sentence about it."""

    def __init__(self, told: str, cause: str) -> None:
        super().__init__(told)
        self.cause = cause


class SilentError(GivenUpError):
    """The server has not answered anything for long."""


@dataclass
class _TryError(Exception):
    """A try that may be repeated. ``status`` is what the server says; null where it says nothing that can be read.

    ``broke_off``: the server may have computed an answer. ``wait``: so many seconds, it says.
    """

    cause: str
    status: int | None = None
    broke_off: bool = False
    wait: float | None = None


@dataclass(frozen=True)
class Service(Generic[A]):
    """What one server does at ``url``; ``read`` makes an answer of the body, or raises `wire.UnreadableError`."""

    server: ServerConfig
    key: Key
    url: str
    read: Callable[[bytes], A]


class Client(Generic[A]):
    """One service, over one event loop. ``first_wait`` is how long it waits before the second try, in seconds."""

    def __init__(self, service: Service[A], pace: Pace, budget: Budget, first_wait: float) -> None:
        self._server = service.server
        self._key = service.key
        self._url = service.url
        self._read_body = service.read
        self._pace = pace
        self._budget = budget
        self._first_wait = first_wait
        self._heard_at = asyncio.get_running_loop().time()
        self._silent_since: float | None = None
        self._worried = False

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Holds the connections. The pace bounds them, so the connector does not."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers={**self._key.headers, "Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=_proxy(self._url),
        ) as self._session:
            yield

    async def ask(self, body: bytes, most: Load) -> A | None:
        """The answer to one request; null where the server's filter refuses it.

        Raises:
            GivenUpError: the deadline of the request has passed, or the server has not answered anything for long.
            InputError: the server refuses it for good.
        """
        first_at, attempt = float("inf"), 0
        failure: _TryError | None = None
        while True:
            await self._pace.acquire()
            try:
                sent_at = self._now()
                first_at = min(first_at, sent_at)  # the queue before the first try does not count
                self._check_deadline(first_at, sent_at, failure)
                answer = await self._try(body, min(self._server.timeout, first_at + self._server.deadline - sent_at))
            except _TryError as error:
                failure = error
                self._note(failure, sent_at, most)
            else:
                self._heard()
                self._pace.grow()
                return answer
            finally:
                self._pace.release()
            wait = self._wait(attempt, failure)
            self._check_deadline(first_at, self._now() + wait, failure)
            await asyncio.sleep(wait)
            attempt += 1

    async def lives(self) -> bool:
        """Whether the server tells its models, or at least refuses to: then what it is silent on are these requests."""
        url = f"{self._server.url.rstrip('/')}/models"
        try:
            async with self._session.get(url, allow_redirects=False, timeout=_timeout(ALIVE_WITHIN)) as response:
                return response.status < 500
        except (aiohttp.ClientError, OSError):
            return False

    def _check_deadline(self, first_at: float, at: float, failure: _TryError | None) -> None:
        """Gives a request up that failed before, if its next try would come too late."""
        if failure is not None and at >= first_at + self._server.deadline:
            raise GivenUpError(self._told(failure, self._now() - first_at), self._clean(failure.cause))

    async def _try(self, body: bytes, seconds: float) -> A | None:
        tally.add("sent")
        try:
            async with self._session.post(
                self._url, data=body, allow_redirects=False, timeout=_timeout(seconds)
            ) as response:
                raw = await response.read()
        except aiohttp.ConnectionTimeoutError:
            raise _TryError("no connection: timeout") from None
        except TimeoutError:
            raise _TryError("timeout", broke_off=True) from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.InvalidURL) as error:
            raise InputError(f"{self._server.url}: {self._clean(str(error))}") from None
        except aiohttp.ClientPayloadError:
            raise _TryError("truncated", broke_off=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _TryError(_connection(error)) from None
        if response.status < 300:
            return self._read(raw)
        self._refuse(response, raw)
        return None

    def _read(self, raw: bytes) -> A:
        try:
            return self._read_body(raw)
        except wire.UnreadableError as error:
            raise _TryError(str(error), broke_off=True) from None

    def _refuse(self, response: aiohttp.ClientResponse, raw: bytes) -> None:
        """Raises what a status says; returns where it says that this one prompt is refused by a filter."""
        status = response.status
        if status in AGAIN or status >= 500:
            raise _TryError(str(status), status, wait=retry_after(response.headers.get("Retry-After")))
        message, code = wire.error_message(raw)
        if status < 400:
            message = f"it has moved to {response.headers.get('Location')}"
        if status == 400 and code == FILTERED:
            return
        hint = HINTS.get(status, "see to the server or the setting that it names")
        said = f"{status} {self._clean(message)}".strip()
        raise InputError(f"{self._url}: {said}; {hint.format(env=self._server.api_key_env)}")

    def _note(self, failure: _TryError, sent_at: float, most: Load) -> None:
        """Counts a failed try, slows down where it says so, and gives up on a server that has fallen silent."""
        self._budget.retry(failure.cause)
        if failure.broke_off:
            self._budget.spend(most)
        if failure.cause in ("timeout", "429"):
            self._pace.halve(sent_at)
        if failure.wait is not None and failure.wait < self._server.deadline:
            self._pace.hold(failure.wait)
        if failure.status is not None and failure.status < 500:
            self._heard()
            return
        if self._silent_since is None:
            self._silent_since = max(sent_at, self._heard_at)
        self._bear(failure, self._now() - self._silent_since)

    def _bear(self, failure: _TryError, silent: float) -> None:
        """Says that the server is silent, once; and after long enough that this is the end."""
        told = self._told(failure, silent)
        if silent >= self._server.give_up_after:
            raise SilentError(told, self._clean(failure.cause))
        if silent >= WORRY and not self._worried:
            self._worried = True
            log.warning("%s; trying for %g s", told, self._server.give_up_after)

    def _told(self, failure: _TryError, seconds: float) -> str:
        last = self._clean(failure.cause) + (f", asks to wait {failure.wait:,.0f} s" if failure.wait else "")
        return f"{self._server.url}: no answer in {seconds:,.3g} s of trying (at last: {last})"

    def _wait(self, attempt: int, failure: _TryError) -> float:
        """Seconds before the next try: from half to all of a time that doubles, and no less than the server asks."""
        longest = min(LONGEST_WAIT, self._first_wait * 2.0 ** min(attempt, 16))
        return max(failure.wait or 0.0, longest * random.uniform(0.5, 1))

    def _clean(self, text: str) -> str:
        """One short line without the key."""
        return " ".join(self._key.redact(text).split())[:500]

    def _heard(self) -> None:
        self._heard_at, self._silent_since, self._worried = self._now(), None, False

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date; null where it holds neither."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _connection(error: Exception) -> str:
    """Why there is no connection, in the words of the system, which are the same for every try."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLError):
        return f"no connection: {cause.reason}"
    number = getattr(cause, "errno", None) or 0
    reason = os.strerror(number) if number > 0 else getattr(cause, "strerror", None)  # below 0: names, not sockets
    return f"no connection: {reason or type(error).__name__}"


def _timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, 30.0))


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for ``url``. aiohttp's own look costs a thread for every request."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)

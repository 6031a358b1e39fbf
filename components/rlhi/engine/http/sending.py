"""Sends many jobs to a server, as many at a time as it bears, and gives back what it said, in any order."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import reduce
from operator import add
from typing import Generic, Protocol, TypeVar

from rlhi.engine.http.budget import KEPT, NOTHING, Budget, CapReachedError, Load
from rlhi.engine.http.client import Client, GivenUpError, Service, SilentError
from rlhi.engine.http.pace import START, Pace
from rlhi.engine.http.thread import Put, found_by
from rlhi.errors import InputError

log = logging.getLogger("rlhi")


class Sendable(Protocol):
    """One request to a server."""

    @property
    def most(self) -> Load:
        """Tokens that it may take."""

    @property
    def replies(self) -> int:
        """How many it asks for."""


J = TypeVar("J", bound=Sendable)
A = TypeVar("A")
F = TypeVar("F")
# asks for one job, and puts what came of it; what is left of it goes to the jobs that wait
Ask = Callable[[Client[A], J, deque[J], Put[F]], Awaitable[None]]
Lost = tuple[J, GivenUpError]


class UnansweredError(InputError, Generic[J]):
    """All other jobs are done; these were given up."""

    def __init__(self, lost: Sequence[Lost[J]], asked: int) -> None:
        self.lost = lost
        self.told = f"{lost[-1][1]}; given up were {len(lost)} of {asked} requests"
        super().__init__(f"{self.told}; {KEPT}")


class Sender(Generic[A]):
    """A server, and what has been asked of it so far. One call at a time."""

    def __init__(self, service: Service[A], first_wait: float) -> None:
        self.budget = Budget(service.server)
        self._service = service
        self._first_wait = first_wait
        self._pace = float(START)

    def send(self, jobs: Sequence[J], ask: Ask[A, J, F]) -> Iterator[F]:
        """What ``ask`` puts for each job, begun in this order.

        Raises:
            UnansweredError: after all other jobs, where some were given up.
            InputError: at once, where nothing more can be asked.
        """
        if not jobs:
            return
        lost: list[Lost[J]] = []
        self.budget.announce(len(jobs), reduce(add, (job.most for job in jobs), NOTHING))

        async def work(put: Put[F]) -> None:
            await self._together(deque(jobs), ask, put, lost)

        yield from found_by(work)
        if lost:
            raise UnansweredError(lost, len(jobs))

    def bear(self, error: UnansweredError[J]) -> None:
        """Counts what was given up, and says so.

        Raises:
            UnansweredError: it is more than a stage goes on without.
        """
        for job, why in error.lost:
            self.budget.give_up(job.replies, why.cause)
        if not self.budget.bearable:
            raise error
        log.warning("%s, whose rows are left out as unanswered", error.told)

    async def _together(self, waiting: deque[J], ask: Ask[A, J, F], put: Put[F], lost: list[Lost[J]]) -> None:
        """As many workers as may be under way at a time; each takes the next job until none waits."""
        most = self._service.server.concurrency
        pace = Pace(most, self._pace)
        client = Client(self._service, pace, self.budget, self._first_wait)
        capped: list[CapReachedError] = []

        async def work() -> None:
            while waiting:
                job = waiting.popleft()
                try:
                    await ask(client, job, waiting, put)
                except SilentError as error:
                    if waiting or not await client.lives():
                        raise InputError(f"{error}; see to the server, and {KEPT}") from None
                    lost.append((job, error))
                except GivenUpError as error:
                    lost.append((job, error))
                except CapReachedError as error:
                    capped.append(error)

        try:
            async with client.connected(), asyncio.TaskGroup() as group:
                for _ in range(min(most, len(waiting))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:  # of one server many workers say the same
            raise errors.exceptions[0] from None
        finally:
            self._pace = pace.limit
        if capped:
            raise capped[-1]

"""How many requests are under way: as many as the server answers in time, found by trying.

Each answer lets one more go until the server first objects, so the number doubles with every round; from then on it
grows by one a round. Where the server says that it is asked too much (429), or does not answer in time, it is halved,
once for all requests that were sent before the halving. Retry-After holds everything back.
"""

import asyncio
from collections import deque

START = 16  # not all at once: the first few leave a shared beginning in the server's prefix cache


class Pace:
    """Lets requests pass. It belongs to one event loop."""

    def __init__(self, most: int, start: float = START) -> None:
        self.limit = min(float(start), float(most))
        self._most = float(most)
        self._under_way = 0
        self._objected = False
        self._halved_at = self._resume_at = float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Waits until one more request may go."""
        while self._under_way >= max(1, int(self.limit)) or self._held() > 0:
            if self._held() > 0:
                await asyncio.sleep(self._held())
                continue
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                self._wake()  # it may have been this one's turn
                raise
        self._under_way += 1

    def release(self) -> None:
        """A request is no longer under way."""
        self._under_way -= 1
        self._wake()

    def grow(self) -> None:
        """The server has answered."""
        self.limit = min(self._most, self.limit + (1 / self.limit if self._objected else 1))
        self._wake()

    def halve(self, sent_at: float) -> None:
        """The server objects to a request that was sent at ``sent_at``."""
        if sent_at > self._halved_at:
            self._objected = True
            self._halved_at = asyncio.get_running_loop().time()
            self.limit = max(1.0, self.limit / 2)

    def hold(self, seconds: float) -> None:
        """Nothing goes for so long."""
        self._resume_at = max(self._resume_at, asyncio.get_running_loop().time() + seconds)

    def _held(self) -> float:
        return self._resume_at - asyncio.get_running_loop().time()

    def _wake(self) -> None:
        room = max(1, int(self.limit)) - self._under_way
        while room > 0 and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

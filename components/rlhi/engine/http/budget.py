"""What a stage asks of a server: counted, and held under a cap.

A request goes out only if its longest answer still fits under the cap beside everything that is under way, so the cap
is not passed. Counted is what the server reports, an estimate where it reports nothing. A try that broke off counts in
full: it may have been computed, and billed.
"""

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass, field

from rlhi.config import ServerConfig
from rlhi.engine import tally
from rlhi.errors import InputError

log = logging.getLogger("rlhi")
MILLION = 1_000_000
BYTES_PER_TOKEN = 3  # of prose 4 to 5, of code, digits and Chinese 2 to 3: an estimate that is seldom too low
KEPT = "start again to go on: what was answered is in the store of replies, where RLHI_STORE names one"
EVERY = 60.0  # seconds between two announcements
BEARABLE = 0.05  # of the replies of a stage may be given up; more tell of the server, not of the prompts


@dataclass(frozen=True, slots=True)
class Load:
    """Tokens of one request, or of many."""

    tokens_in: int
    tokens_out: int

    def __add__(self, other: "Load") -> "Load":
        return Load(self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out)

    def __sub__(self, other: "Load") -> "Load":
        return Load(self.tokens_in - other.tokens_in, self.tokens_out - other.tokens_out)

    @property
    def total(self) -> int:
        """Tokens, in and out."""
        return self.tokens_in + self.tokens_out


NOTHING = Load(0, 0)


class CapReachedError(InputError):
    """The next request might pass a cap, and nothing is under way any more that could use less than it might."""


def estimate(text: str) -> int:
    """Tokens of ``text``, without its tokenizer."""
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


@dataclass
class Budget:
    """Counts over the life of an engine, in replies. ``retried`` (tries) and ``unanswered`` count by cause.

    ``given_up`` are those of the unanswered for which the server was asked until the deadline.
    """

    server: ServerConfig
    answered: int = 0
    used: Load = NOTHING
    retried: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    given_up: int = 0
    _given_up_requests: int = 0
    _stored_before: float = field(default_factory=lambda: tally.count("stored"))
    _reserved: Load = NOTHING
    _changed: "asyncio.Event | None" = None
    _announced_at: float = float("-inf")

    def cost(self, load: Load) -> float:
        """Dollars."""
        return (load.tokens_in * self.server.price_in + load.tokens_out * self.server.price_out) / MILLION

    def announce(self, requests: int, most: Load) -> None:
        """Tells what ``requests`` may cost, before the first is sent; at most once a minute, for many small calls."""
        capped = self.server.max_cost is not None or self.server.max_tokens_total is not None
        if not (capped or self.cost(Load(1, 1))) or time.monotonic() - self._announced_at < EVERY:
            return
        self._announced_at = time.monotonic()
        log.info(
            "%s: %d requests, about %s prompt tokens and at most %s of answers: $%.2f to $%.2f; used so far: $%.2f",
            self.server.url,
            requests,
            f"{most.tokens_in:,}",
            f"{most.tokens_out:,}",
            self.cost(Load(most.tokens_in, 0)),
            self.cost(most),
            self.cost(self.used),
        )

    async def reserve(self, most: Load) -> None:
        """Waits until ``most`` fits under the cap.

        Raises:
            CapReachedError: it does not, and never will.
        """
        while (cap := self._passed(self.used + self._reserved + most)) is not None:
            if self._reserved == NOTHING:
                raise CapReachedError(self._reached(cap))
            self._changed = self._changed or asyncio.Event()
            await self._changed.wait()
        self._reserved += most

    def settle(self, most: Load) -> None:
        """Gives back what was reserved."""
        self._reserved -= most
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def spend(self, load: Load) -> None:
        """Counts what an answer, or a try that broke off, has used."""
        self.used += load
        tally.add("cost", self.cost(load))

    def retry(self, cause: str) -> None:
        """Counts a try that has to be repeated."""
        self.retried[cause] += 1
        tally.add("retried", 1, cause)

    def leave(self, cause: str) -> None:
        """Counts a reply that will not come."""
        self.unanswered[cause] += 1
        tally.add("unanswered", 1, cause)

    def give_up(self, replies: int, cause: str) -> None:
        """Counts a request that is not tried any more."""
        self._given_up_requests += 1
        self.given_up += replies
        for _ in range(replies):
            self.leave(cause)
        tally.add("given_up", replies)

    @property
    def bearable(self) -> bool:
        """Whether a stage goes on without what was given up: one request, or a small share of all replies.

        All are those that the stage got, out of the store too: a stage that starts again may have nothing left to ask
        but what no server answers. One that got nothing does not go on.
        """
        others = self.answered + tally.count("stored") - self._stored_before
        few = self._given_up_requests == 1 or self.given_up <= BEARABLE * (self.given_up + others)
        return others > 0 and few

    def __str__(self) -> str:
        parts = [f"{self.answered:,} answered"]
        if self.retried:
            parts.append(f"{self.retried.total():,} tries again ({_by_cause(self.retried)})")
        if self.unanswered:
            parts.append(f"{self.unanswered.total():,} without an answer ({_by_cause(self.unanswered)})")
        parts.append(f"{self.used.tokens_in:,} tokens in, {self.used.tokens_out:,} out")
        if self.cost(Load(1, 1)):
            parts.append(f"${self.cost(self.used):.2f}")
        return ", ".join(parts)

    def _passed(self, load: Load) -> str | None:
        """The setting whose cap ``load`` would pass."""
        if self.server.max_cost is not None and self.cost(load) > self.server.max_cost:
            return f"max_cost={self.server.max_cost}"
        if self.server.max_tokens_total is not None and load.total > self.server.max_tokens_total:
            return f"max_tokens_total={self.server.max_tokens_total}"
        return None

    def _reached(self, cap: str) -> str:
        return f"engine.server.{cap}: the next request could pass it ({self}); {KEPT}, with as much to spend again"


def _by_cause(counts: Counter[str]) -> str:
    return ", ".join(f"{cause} {count:,}" for cause, count in counts.most_common())

"""One shard of a stage: its users' requests go to the model, all others get at once what asks for nothing more.

A shard runs the whole stage and keeps nothing of it but replies, in the store. The stage itself runs after its shards
and finds them all there. What hangs on all rows (caps, calibration, figures, what is dropped) is so computed once, by
the same code, and the output is the same whatever the number of shards.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from rlhi.config import SamplingConfig
from rlhi.engine import Engine, Reply, Request, Scores
from rlhi.errors import InputError

MOST = 64  # shards of a stage
NOTHING = Reply("", "stop", None)


@dataclass(frozen=True, slots=True)
class Shard:
    """The ``number``-th, from 1, of ``count`` parts of the users.

    Raises:
        InputError: there is no such part.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        """Refuses more shards than pipelines make."""
        if not 1 <= self.number <= self.count <= MOST:
            raise InputError(f"shard {self}: not one of 1/N to N/N, with N at most {MOST}")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads ``3/8``.

        Raises:
            InputError: it is not written so, or there is no such shard.
        """
        if not re.fullmatch(r"[0-9]{1,4}/[0-9]{1,4}", text):
            raise InputError(f"shard {text}: write I/N, for instance 3/8 for the third of eight")
        number, count = map(int, text.split("/"))
        return cls(number, count)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.number}/{self.count}"

    def has(self, user_id: str | None) -> bool:
        """Whether the user is in this shard; nobody's requests, such as a calibration, are in every one."""
        if user_id is None:
            return True
        drawn = int.from_bytes(hashlib.sha256(user_id.encode()).digest()[:8], "big")
        return drawn % self.count == self.number - 1


class ShardEngine:
    """``engine`` for the users of ``shard`` alone.

    Prompts of other users count as too long, so that a stage leaves them out where it leaves out long ones, and does
    not carry them along. One that comes nevertheless gets an empty reply, or equal scores.
    """

    def __init__(self, engine: Engine, shard: Shard) -> None:
        self.engine = engine
        self.shard = shard
        self.identity = engine.identity

    def stream(
        self, requests: Sequence[Request], sampling: SamplingConfig, samples: Sequence[Sequence[int]], seed: int
    ) -> Iterator[tuple[int, int, Reply]]:
        """Nothing for the others, then the replies of the shard's own as they come."""
        own = self._own(requests)
        others = set(range(len(requests))).difference(own)
        yield from ((place, number, NOTHING) for place in sorted(others) for number in samples[place])
        asked, numbers = [requests[place] for place in own], [samples[place] for place in own]
        for i, number, reply in self.engine.stream(asked, sampling, numbers, seed):
            yield own[i], number, reply

    def weigh(self, requests: Sequence[Request], choices: Sequence[str]) -> Iterator[tuple[int, Scores]]:
        """All 0 for the others, then the scores of the shard's own as they come."""
        own = self._own(requests)
        yield from ((place, [0.0] * len(choices)) for place in sorted(set(range(len(requests))).difference(own)))
        for i, scores in self.engine.weigh([requests[place] for place in own], choices):
            yield own[i], scores

    def count_tokens(self, request: Request) -> int:
        """As the engine counts; too many for the others."""
        return self.engine.count_tokens(request) if self.shard.has(request.user_id) else self.max_prompt_tokens + 1

    @property
    def max_prompt_tokens(self) -> int:
        """As the engine's."""
        return self.engine.max_prompt_tokens

    def _own(self, requests: Sequence[Request]) -> list[int]:
        return [place for place, request in enumerate(requests) if self.shard.has(request.user_id)]


_CURRENT: ContextVar[Shard | None] = ContextVar("shard", default=None)


@contextmanager
def asking_for(shard: Shard) -> Iterator[None]:
    """Engines that are opened in here ask for the users of ``shard`` alone."""
    token = _CURRENT.set(shard)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def of_current_shard(engine: Engine) -> Engine:
    """``engine`` as it is, or for the shard that is being asked for."""
    shard = _CURRENT.get()
    return engine if shard is None else ShardEngine(engine, shard)

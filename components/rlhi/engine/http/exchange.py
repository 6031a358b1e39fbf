"""Sends many jobs to a server and gives back what was said, in whatever order it comes."""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

from rlhi.config import ServerConfig
from rlhi.engine import tally
from rlhi.engine.http import wire
from rlhi.engine.http.budget import KEPT, NOTHING, Budget, CapReachedError, Load, estimate
from rlhi.engine.http.client import FILTERED, Client, GivenUpError
from rlhi.engine.http.pace import START, Pace
from rlhi.engine.http.secret import Key
from rlhi.engine.http.thread import Put, found_by
from rlhi.errors import InputError
from rlhi.records import Message

ANSWERED = ("stop", "length")
PER_MESSAGE = 4  # tokens that a chat template writes around one, about


@dataclass(frozen=True, slots=True)
class Job:
    """One request to the server: samples of one prompt, by their numbers; ``fields`` of the body say how."""

    place: int
    messages: tuple[Message, ...]
    samples: range
    fields: Mapping[str, Any]

    @property
    def most(self) -> Load:
        """Tokens that it may take: an estimate of the prompt, and the longest answers."""
        longest = self.fields.get("max_completion_tokens") or self.fields.get("max_tokens") or 0
        return Load(prompt_tokens(self.messages), len(self.samples) * longest)

    def singly(self, start: int) -> list["Job"]:
        """The samples from the one at ``start`` on, each as a job of its own."""
        return [
            replace(self, samples=range(k, k + 1), fields=wire.single(self.fields, k - self.samples.start))
            for k in self.samples[start:]
        ]


Found = tuple[Job, tuple[wire.Said, ...]]


def prompt_tokens(messages: Sequence[Message]) -> int:
    """An estimate of the tokens of a prompt."""
    return sum(estimate(message.content) + PER_MESSAGE for message in messages)


class Exchange:
    """A server, and what has been asked of it so far. One call at a time."""

    def __init__(self, model: str, server: ServerConfig, key: Key, first_wait: float) -> None:
        self.budget = Budget(server)
        self._model = model
        self._server = server
        self._key = key
        self._first_wait = first_wait
        self._pace = float(START)

    def ask(self, jobs: Sequence[Job]) -> Iterator[Found]:
        """Each job, sent in this order, with what was said; in parts where the server answers in parts.

        Raises:
            InputError: at once where nothing more can be asked; after all other jobs where some were given up.
        """
        if not jobs:
            return
        given_up: list[GivenUpError] = []
        self.budget.announce(len(jobs), reduce(add, (job.most for job in jobs), NOTHING))

        async def work(put: Put[Found]) -> None:
            await self._together(deque(jobs), put, given_up)

        yield from found_by(work)
        if given_up:
            raise InputError(f"{given_up[0]}; given up were {len(given_up)} of {len(jobs)} requests; {KEPT}")

    async def _together(self, waiting: deque[Job], put: Put[Found], given_up: list[GivenUpError]) -> None:
        """As many workers as may be under way at a time; each takes the next job until none waits."""
        pace = Pace(self._server.concurrency, self._pace)
        client = Client(self._server, self._key, pace, self.budget, self._first_wait)
        capped: list[CapReachedError] = []

        async def work() -> None:
            while waiting:
                try:
                    await self._one(client, waiting, put)
                except GivenUpError as error:
                    given_up.append(error)
                except CapReachedError as error:
                    capped.append(error)

        try:
            async with client.connected(), asyncio.TaskGroup() as group:
                for _ in range(min(self._server.concurrency, len(waiting))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:  # of one server many workers say the same
            raise errors.exceptions[0] from None
        finally:
            self._pace = pace.limit
        if capped:
            raise capped[-1]

    async def _one(self, client: Client, waiting: deque[Job], put: Put[Found]) -> None:
        job = waiting.popleft()
        most = job.most
        await self.budget.reserve(most)
        try:
            answer = await client.ask(wire.body(self._model, job.messages, job.fields), most)
            said = self._count(job, answer)
            waiting.extendleft(reversed(job.singly(len(said))))  # a server that takes no n answers with one sample
            await put((replace(job, samples=job.samples[: len(said)]), said))
        finally:
            self.budget.settle(most)

    def _count(self, job: Job, answer: wire.Completion | None) -> tuple[wire.Said, ...]:
        """What was said, without the key if the server echoes it, and counted."""
        if answer is None:
            said = tuple(wire.Said("", FILTERED, None) for _ in job.samples)
        else:
            said = tuple(self._cleaned(each) for each in answer.said[: len(job.samples)])
            tokens_in = prompt_tokens(job.messages) if answer.tokens_in is None else answer.tokens_in
            tokens_out = sum(estimate(each.text) for each in said) if answer.tokens_out is None else answer.tokens_out
            self.budget.used += Load(tokens_in, tokens_out)
            tally.add("tokens", tokens_out)
        self.budget.answered += sum(each.finish_reason in ANSWERED for each in said)
        self.budget.unanswered.update(each.finish_reason for each in said if each.finish_reason not in ANSWERED)
        return said

    def _cleaned(self, said: wire.Said) -> wire.Said:
        return replace(said, text=self._key.redact(said.text), finish_reason=self._key.redact(said.finish_reason)[:40])

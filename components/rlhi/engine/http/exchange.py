"""Many chat completions: one request for several samples, or several where the server takes no n."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlhi.config import ServerConfig
from rlhi.engine import tally
from rlhi.engine.http import wire
from rlhi.engine.http.budget import Load, estimate
from rlhi.engine.http.client import FILTERED, Client, Service
from rlhi.engine.http.secret import Key
from rlhi.engine.http.sending import Sender, UnansweredError
from rlhi.engine.http.thread import Put
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

    @property
    def replies(self) -> int:
        """One a sample."""
        return len(self.samples)

    def singly(self, start: int) -> list["Job"]:
        """The samples from the one at ``start`` on, each as a job of its own."""
        return [
            replace(self, samples=range(k, k + 1), fields=wire.single(self.fields, k - self.samples.start))
            for k in self.samples[start:]
        ]


Said = tuple[wire.Said, ...]


def prompt_tokens(messages: Sequence[Message]) -> int:
    """An estimate of the tokens of a prompt."""
    return sum(estimate(message.content) + PER_MESSAGE for message in messages)


class Exchange:
    """A server of chat completions, and what has been asked of it so far. One call at a time."""

    def __init__(self, model: str, server: ServerConfig, key: Key, first_wait: float) -> None:
        self._model = model
        self._key = key
        self._sender = Sender(Service(server, key, f"{server.url.rstrip('/')}/chat/completions", wire.read), first_wait)
        self.budget = self._sender.budget

    def ask(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Said | None]]:
        """Each job, sent in this order, with what was said; in parts where the server answers in parts.

        At last, with null, the jobs that were given up.

        Raises:
            InputError: at once where nothing more can be asked; after all other jobs where too many were given up.
        """
        try:
            yield from self._sender.send(jobs, self._one)
        except UnansweredError as error:
            self._sender.bear(error)
            yield from ((job, None) for job, _ in error.lost)

    async def _one(
        self, client: Client[wire.Completion], job: Job, waiting: deque[Job], put: Put[tuple[Job, Said]]
    ) -> None:
        most = job.most
        await self.budget.reserve(most)
        try:
            answer = await client.ask(wire.body(self._model, job.messages, job.fields), most)
            said = self._count(job, answer)
            waiting.extendleft(reversed(job.singly(len(said))))  # a server that takes no n answers with one sample
            await put((replace(job, samples=job.samples[: len(said)]), said))
        finally:
            self.budget.settle(most)

    def _count(self, job: Job, answer: wire.Completion | None) -> Said:
        """What was said, without the key if the server echoes it, and counted."""
        if answer is None:
            said = tuple(wire.Said("", FILTERED, None) for _ in job.samples)
        else:
            said = tuple(self._cleaned(each) for each in answer.said[: len(job.samples)])
            tokens_in = prompt_tokens(job.messages) if answer.tokens_in is None else answer.tokens_in
            tokens_out = sum(estimate(each.text) for each in said) if answer.tokens_out is None else answer.tokens_out
            self.budget.spend(Load(tokens_in, tokens_out))
            tally.add("prompt_tokens", tokens_in)
            tally.add("cached_tokens", answer.tokens_cached or 0)
            tally.add("tokens", tokens_out)
        self.budget.answered += sum(each.finish_reason in ANSWERED for each in said)
        for reason in [each.finish_reason for each in said if each.finish_reason not in ANSWERED]:
            self.budget.leave(reason)
        return said

    def _cleaned(self, said: wire.Said) -> wire.Said:
        return replace(said, text=self._key.redact(said.text), finish_reason=self._key.redact(said.finish_reason)[:40])

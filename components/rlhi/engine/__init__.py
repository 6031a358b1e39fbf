"""Text in, text out: one interface to language models, and who is behind it is the config's choice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rlhi.config import EngineConfig, SamplingConfig
from rlhi.engine import tally
from rlhi.progress import bar
from rlhi.records import FinishReason, Message


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt. ``key`` names the row: with the seed it fixes the randomness of this row's answers."""

    key: str
    messages: tuple[Message, ...]
    persona: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; ``logprob`` is the sum over its tokens in nats under the model at temperature 1, null if unknown."""

    text: str
    finish_reason: FinishReason
    logprob: float | None


class Engine(Protocol):
    """What every stage that calls a model is given."""

    def stream(
        self, requests: Sequence[Request], sampling: SamplingConfig, samples: Sequence[Sequence[int]], seed: int
    ) -> Iterator[tuple[int, int, Reply]]:
        """The replies with the sample numbers asked for, one list of numbers per request: (place, number, reply).

        Each comes as soon as it is there, in any order. A reply hangs on its request, its number, sampling and seed,
        never on what else is asked for in the same call, so that a run which goes on says what it would have said.
        """

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[list[float]]:
        """For each request the log-probability, in nats, of each choice as the beginning of the answer."""

    def count_tokens(self, request: Request) -> int:
        """Tokens of the rendered prompt."""

    @property
    def max_prompt_tokens(self) -> int:
        """Prompts longer than this are for the stage to drop, with a reason."""

    @property
    def identity(self) -> str:
        """What replies depend on beside request, sampling and seed: kind, model, revision, template, persona's role.

        No secret, and no address that does not matter: replies are stored by it.
        """


def generate(
    engine: Engine, requests: Sequence[Request], sampling: SamplingConfig, n: int, seed: int
) -> list[list[Reply]]:
    """``n`` answers to each request, in order."""
    found: dict[tuple[int, int], Reply] = {}
    before = tally.count("stored")
    with tally.timed(), bar("answering", len(requests) * n, "reply") as shown:
        for place, number, reply in engine.stream(requests, sampling, [range(n)] * len(requests), seed):
            found[place, number] = reply
            if tally.count("stored") > before:
                shown.set_postfix_str(f"{tally.count('stored') - before:.0f} from the store", refresh=False)
            shown.update()
    return [[found[place, number] for number in range(n)] for place in range(len(requests))]


def open_engine(config: EngineConfig) -> Engine:
    """The engine that ``config`` names, ready to answer.

    Raises:
        InputError: the model or the script cannot be loaded.
    """
    if config.kind == "scripted":
        from rlhi.engine.scripted import load

        return with_store(load(config))
    if config.kind == "openai":
        from rlhi.engine.http.engine import HttpEngine

        return with_store(HttpEngine(config.model, config.server), 4 * config.server.concurrency)
    from rlhi.engine.models import load_policy
    from rlhi.engine.transformers import TransformersEngine

    return with_store(TransformersEngine(load_policy(config.model), config.batch_size))


def with_store(engine: Engine, choices_at_once: int | None = None) -> Engine:
    """``engine`` behind the store of replies, where one is configured: see `rlhi.engine.store`.

    Raises:
        InputError: the store cannot be used.
    """
    from rlhi.engine.store import Store, configured
    from rlhi.engine.stored import CHOICES_AT_ONCE, StoredEngine

    path = configured()
    return engine if path is None else StoredEngine(engine, Store(path), choices_at_once or CHOICES_AT_ONCE)

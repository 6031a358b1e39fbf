"""Text in, text out: one interface to language models, and who is behind it is the config's choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlhi.config import EngineConfig, SamplingConfig
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

    def generate(self, requests: Sequence[Request], sampling: SamplingConfig, n: int, seed: int) -> list[list[Reply]]:
        """``n`` answers to each request, in order."""

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[list[float]]:
        """For each request the log-probability, in nats, of each choice as the beginning of the answer."""

    def count_tokens(self, request: Request) -> int:
        """Tokens of the rendered prompt."""

    @property
    def max_prompt_tokens(self) -> int:
        """Prompts longer than this are for the stage to drop, with a reason."""


def open_engine(config: EngineConfig) -> Engine:
    """The engine that ``config`` names, ready to answer.

    Raises:
        InputError: the model or the script cannot be loaded.
    """
    if config.kind == "scripted":
        from rlhi.engine.scripted import load

        return load(config)
    if config.kind == "openai":
        from rlhi.engine.http.engine import HttpEngine

        return HttpEngine(config.model, config.server)
    from rlhi.engine.models import load_policy
    from rlhi.engine.transformers import TransformersEngine

    return TransformersEngine(load_policy(config.model), config.batch_size)

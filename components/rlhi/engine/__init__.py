"""Text in, text out: one interface to language models, and who is behind it is the config's choice."""

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlhi.config import EngineConfig, ModelConfig, SamplingConfig
from rlhi.engine import tally
from rlhi.errors import InputError
from rlhi.progress import Bar, bar
from rlhi.records import FinishReason, Message, Missing, Reason

log = logging.getLogger("rlhi")
NOT_SERVED = (
    "engine.kind='openai': a server goes on answering with its own model while the policy is trained; choose vllm or"
    " transformers"
)


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt. ``key`` names the row: with the seed it fixes the randomness of this row's answers.

    ``user_id`` is whose row it is, by which requests are split into shards; null where it is nobody's.
    """

    key: str
    messages: tuple[Message, ...]
    persona: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; ``logprob`` is the sum over its tokens in nats under the model at temperature 1, null if unknown.

    ``missing`` says why there is none: ``filtered`` where the server's filter refuses, or ends with something that is
    no answer, and ``unanswered`` where it failed until the deadline, while others were answered.
    """

    text: str
    finish_reason: FinishReason
    logprob: float | None
    missing: Missing | None = None

    @property
    def lack(self) -> Reason | None:
        """Why a row that needs this answer is dropped; null where there is one."""
        return self.missing or (None if self.text.strip() else "empty_answer")


FILTERED = Reply("", "stop", None, "filtered")
UNANSWERED = Reply("", "stop", None, "unanswered")
Scores = list[float] | Missing  # log-probabilities of choices, in nats, or why there are none


class Engine(Protocol):
    """What every stage that calls a model is given."""

    def stream(
        self, requests: Sequence[Request], sampling: SamplingConfig, samples: Sequence[Sequence[int]], seed: int
    ) -> Iterator[tuple[int, int, Reply]]:
        """The replies with the sample numbers asked for, one list of numbers per request: (place, number, reply).

        Each comes as soon as it is there, in any order. A reply hangs on its request, its number, sampling and seed,
        never on what else is asked for in the same call, so that a run which goes on says what it would have said.
        """

    def weigh(self, requests: Sequence[Request], choices: Sequence[str]) -> Iterator[tuple[int, Scores]]:
        """For each request the log-probability, in nats, of each choice as the beginning of the answer.

        (place, log-probabilities or why there are none), each as soon as it is there, in any order.
        """

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
    groups = generate_in_groups(engine, requests, Drawing(sampling, n, seed), max(1, len(requests)))
    return [replies for group in groups for replies in group]


@dataclass(frozen=True, slots=True)
class Drawing:
    """How many answers are drawn to a request, and how."""

    sampling: SamplingConfig
    n: int
    seed: int


def generate_in_groups(
    engine: Engine, requests: Sequence[Request], drawing: Drawing, size: int
) -> Iterator[list[list[Reply]]]:
    """As `generate`, ``size`` requests at a time, for answers that do not fit into memory all together."""
    n = drawing.n
    with _shown("answering", len(requests) * n) as shown:
        for start in range(0, len(requests), size):
            some = requests[start : start + size]
            found: dict[tuple[int, int], Reply] = {}
            for place, number, reply in engine.stream(some, drawing.sampling, [range(n)] * len(some), drawing.seed):
                found[place, number] = reply
                tally.add("given")
                shown.update()
            yield [[found[place, number] for number in range(n)] for place in range(len(some))]


def choose(engine: Engine, requests: Sequence[Request], choices: Sequence[str]) -> list[Scores]:
    """For each request, in order, the log-probability in nats of each choice as the beginning of the answer."""
    found: dict[int, Scores] = {}
    with _shown("choosing", len(requests)) as shown:
        for place, scores in engine.weigh(requests, choices):
            found[place] = scores
            tally.add("given")
            shown.update()
    return [found[place] for place in range(len(requests))]


def usual_scores(engine: Engine, empty: Request, choices: Sequence[str]) -> list[float]:
    """What each choice scores on a question about nothing, to be taken away from what it scores on others.

    Raises:
        InputError: the model does not answer it.
    """
    (scores,) = choose(engine, [empty], choices)
    if isinstance(scores, str):
        raise InputError(f"calibrate=true: the empty question {empty.key!r} is {scores}; set calibrate=false")
    return scores


@contextmanager
def _shown(what: str, total: int) -> Iterator[Bar]:
    """A bar, and a clock, while a model is asked."""
    counted = tally.since()
    with tally.timed(), bar(what, total, "reply", lambda: tally.short(counted())) as shown:
        yield shown


def open_engine(config: EngineConfig, policy: Path | None = None) -> Engine:
    """The engine that ``config`` names, ready to answer: with its model as it is, or as ``policy`` was trained from it.

    ``policy`` is the folder of a model that dpo made. A script, which is for dry runs, says what it says.

    Raises:
        InputError: the model or the script cannot be loaded, or it is a server that should answer with a policy.
    """
    if config.kind == "scripted":
        from rlhi.engine.scripted import load

        return with_store(load(config))
    if config.kind == "openai":
        from rlhi.engine.http.engine import HttpEngine

        if policy is not None:
            raise InputError(NOT_SERVED)

        return with_store(HttpEngine(config.model, config.server))
    if config.kind == "vllm" or (config.kind == "auto" and _has_vllm(config.model)):
        from rlhi.engine.vllm.engine import VllmEngine

        return with_store(VllmEngine(config.model, config.vllm, policy))
    from rlhi.engine.models import load_policy, trained_in
    from rlhi.engine.transformers import TransformersEngine

    return with_store(TransformersEngine(load_policy(config.model, trained_in(policy)), config.batch_size))


def _has_vllm(model: ModelConfig) -> bool:
    """Whether ``auto`` means vllm here; the log says so or why not."""
    if model.device != "auto":
        missing = f"model.device={model.device}"
    elif importlib.util.find_spec("vllm") is None:
        missing = "vllm is not installed"
    elif not _has_gpu():
        missing = "there is no GPU"
    else:
        missing = ""
    log.info("engine: %s", f"transformers, since {missing}" if missing else "vllm")
    return not missing


def _has_gpu() -> bool:
    import torch

    found: bool = torch.cuda.is_available()
    return found


def with_store(engine: Engine) -> Engine:
    """``engine`` behind the store of replies, where one is configured, and for one shard while that is asked for.

    Raises:
        InputError: the store cannot be used.
    """
    from rlhi.engine.replies import open_replies
    from rlhi.engine.sharded import of_current_shard
    from rlhi.engine.stored import StoredEngine

    store = open_replies(engine.identity)
    return of_current_shard(engine if store is None else StoredEngine(engine, store))

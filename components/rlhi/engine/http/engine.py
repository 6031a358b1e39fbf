"""The engine behind an OpenAI-compatible server: vLLM's own, or a hosted judge.

A sample is fixed by the seed, the row's key and its number, as far as the server keeps to seeds (vLLM does, others
try). Samples with consecutive numbers are one request for n of them, where they are drawn at random.

What the server ends without an answer (a content filter, a call of a tool) is a reply that is ``filtered``. A request
that fails until its deadline, or on which a server that lives is silent for long, is given up after all others are
answered: its replies are ``unanswered``. Every stage drops both, each with that reason; how many these are, and why, is
in the log and among the metrics. A few are borne; where too many are given up, the stage ends.

Log-probabilities are the server's: vLLM's are those of the model at temperature 1, unless it is started with another
--logprobs-mode. They leave out the token that ends an answer, which the transformers engine counts in.
"""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from rlhi.config import ModelConfig, SamplingConfig, ServerConfig, as_dict, digest
from rlhi.engine import FILTERED, UNANSWERED, Reply, Request, Scores
from rlhi.engine.http import wire
from rlhi.engine.http.choices import scores
from rlhi.engine.http.exchange import ANSWERED, Exchange, Job, prompt_tokens
from rlhi.engine.http.secret import read_key
from rlhi.engine.places import without_weights
from rlhi.engine.seeds import runs, seed_of
from rlhi.errors import InputError
from rlhi.records import Message
from rlhi.render import Renderer, prompt, with_persona

GREEDY = SamplingConfig(temperature=0, top_p=1, max_tokens=256)  # a judge may say a sentence before it chooses
TOP = 20  # log-probabilities in one place: OpenAI's limit, and vLLM's unless it is started with another


class HttpEngine:
    """Asks a server, many requests at a time."""

    def __init__(self, model: ModelConfig, server: ServerConfig, first_wait: float = 0.5) -> None:
        if model.id == "embedded":
            raise InputError("engine.model.id='embedded': give the name that the server has for its model")
        self.model = model
        self.server = server
        self._exchange = Exchange(model.id, server, read_key(server), first_wait)
        self.budget = self._exchange.budget

    def stream(
        self, requests: Sequence[Request], sampling: SamplingConfig, samples: Sequence[Sequence[int]], seed: int
    ) -> Iterator[tuple[int, int, Reply]]:
        """Each reply as soon as it is there: (place of the request, number of the sample, reply).

        Raises:
            InputError: the server refuses a request, is silent, or a cap is reached; or, after all others, too many
                requests were given up. What was yielded before stands.
        """
        most = self.server.max_n if sampling.temperature else 1  # vLLM refuses n where n answers would be the same
        jobs = [
            self._job(place, requests[place], run, self._drawn(sampling, seed, requests[place].key, run))
            for place, own in enumerate(samples)
            for run in runs(own, most)
        ]
        for job, said in self._exchange.ask(jobs):
            replies = [UNANSWERED] * len(job.samples) if said is None else map(_reply, said)
            for sample, reply in zip(job.samples, replies, strict=True):
                yield job.place, sample, reply

    def weigh(self, requests: Sequence[Request], choices: Sequence[str]) -> Iterator[tuple[int, Scores]]:
        """Scores of the choices, see `rlhi.engine.http.choices`: log-probabilities as far as the server tells them.

        With ``choice: structured`` vLLM lets the model say nothing but a choice, and what it tells are the
        log-probabilities among what is allowed. With ``choice: text`` the model says what it likes.
        """
        structured = {"choice": list(choices)} if self.server.choice == "structured" else None
        fields = {**wire.sampling_fields(GREEDY), "structured_outputs": structured, **self._logprobs(TOP)}
        jobs = [self._job(place, request, range(1), fields) for place, request in enumerate(requests)]
        for job, said in self._exchange.ask(jobs):
            yield job.place, "unanswered" if said is None else _scores(said[0], choices)

    def count_tokens(self, request: Request) -> int:
        """Tokens of the prompt by the tokenizer that is configured; else an estimate, seldom too low."""
        if self._renderer is None:
            return prompt_tokens(self._messages(request))
        return len(self._renderer.prompt(request.messages, request.persona))

    @property
    def max_prompt_tokens(self) -> int:
        """As configured."""
        return self.model.max_prompt_tokens

    @property
    def identity(self) -> str:
        """What replies depend on: the model and how it is asked; not where, how fast or with whose key."""
        asked = {
            "extra": self.server.extra,
            "choice": self.server.choice,
            "logprobs": self.server.logprobs,
            "choosing": [as_dict(GREEDY), TOP],
            "persona": [self.model.persona_role, prompt("rlhi", "persona_guided.j2", persona="")],
        }
        return f"openai {self.model.id} {self.model.revision} {digest(json.dumps(asked, sort_keys=True))}"

    @cached_property
    def _renderer(self) -> Renderer | None:
        return None if self.server.tokenizer is None else load_renderer(self.server.tokenizer, self.model.persona_role)

    def _messages(self, request: Request) -> tuple[Message, ...]:
        return with_persona(request.messages, request.persona, self.model.persona_role)

    def _job(self, place: int, request: Request, samples: range, fields: dict[str, Any]) -> Job:
        return Job(place, self._messages(request), samples, {**fields, **self.server.extra})

    def _drawn(self, sampling: SamplingConfig, seed: int, key: str, samples: range) -> dict[str, Any]:
        return {
            **wire.sampling_fields(sampling),
            "n": len(samples) if len(samples) > 1 else None,
            "seed": seed_of(seed, key, samples.start),
            **self._logprobs(None),
        }

    def _logprobs(self, top: int | None) -> dict[str, Any]:
        return {"logprobs": True, "top_logprobs": top} if self.server.logprobs else {}


def _reply(said: wire.Said) -> Reply:
    if said.finish_reason not in ANSWERED:
        return FILTERED
    return Reply(said.text, "length" if said.finish_reason == "length" else "stop", said.logprob)


def _scores(said: wire.Said, choices: Sequence[str]) -> Scores:
    return scores(said, choices) if said.finish_reason in ANSWERED else "filtered"


def load_renderer(tokenizer: str, persona_role: str) -> Renderer:
    """A renderer that counts: the chat template is the server's business otherwise.

    Raises:
        InputError: the tokenizer cannot be loaded, or has no chat template.
    """
    where = f"engine.server.tokenizer={tokenizer!r}"
    try:
        from transformers import AutoTokenizer

        name, revision = without_weights(tokenizer)
        loaded = AutoTokenizer.from_pretrained(name, revision=revision)
    except ImportError:
        raise InputError(f"{where}: needs transformers: pip install 'rlhi[train]'") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: cannot be loaded: {str(error).strip().splitlines()[0]}") from None
    if not loaded.chat_template:
        raise InputError(f"{where}: has no chat template; give the one of the server's model, or none")
    return Renderer(loaded, persona_role)

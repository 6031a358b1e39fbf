"""The engine that is vLLM itself, in this process: the one for a GPU.

Requests go in the order of their prompts' text, so that those which share a beginning (instructions, a persona, a
context) are neighbours: the first computes it, the others find its tokens in vLLM's cache, in whole blocks of 16.

A sample is fixed by the seed, the row's key and its number, as with a server: vLLM gives sample k of a request the seed
plus k. As with transformers, the logits do hang a little on what else is computed at the time (1e-6 in float32, more in
bfloat16), and so a text can part where two tokens are that close; `VLLM_BATCH_INVARIANT=1` makes it exact on GPUs that
vLLM has such kernels for.
"""

import importlib.util
import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from rlhi.config import ModelConfig, SamplingConfig, VllmConfig
from rlhi.engine import Reply, Request, tally
from rlhi.engine.models import identify, trained_in
from rlhi.engine.seeds import runs, seed_of
from rlhi.engine.vllm.replica import Drawn, Job, Replica
from rlhi.engine.vllm.scoring import scores
from rlhi.engine.vllm.start import number_of, start
from rlhi.engine.vllm.together import Shared, together
from rlhi.errors import InputError

MOST = 1024  # samples in one request
NEIGHBOURS = 16  # requests that go to the same copy of the model
ROOM = 32  # tokens behind the longest prompt: a choice, or the beginning of an answer


class VllmEngine:
    """Answers with a Hugging Face model in vLLM, as it is or as ``policy``, a model that dpo made, was trained from it.

    Raises:
        InputError: vllm is not installed, or the model is not there; when it is first asked, vLLM cannot load it, or
            the memory does not hold what it needs.
    """

    def __init__(self, model: ModelConfig, settings: VllmConfig, policy: Path | None = None) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise InputError("engine.kind='vllm': vllm is not installed: pip install 'rlhi[vllm]'")
        self.model = model
        self.settings = settings
        self._found = identify(model, trained_in(policy))
        self.renderer = self._found.renderer

    @cached_property
    def _replicas(self) -> list[Replica]:
        """Started when they are first asked: of a run that is all in the store, no weights are loaded."""
        replicas = start(self._found, self.model, self.settings)
        weakref.finalize(self, _close, replicas)
        return replicas

    def stream(
        self, requests: Sequence[Request], sampling: SamplingConfig, samples: Sequence[Sequence[int]], seed: int
    ) -> Iterator[tuple[int, int, Reply]]:
        """Replies as each is finished, those of similar prompts near each other.

        Raises:
            InputError: a prompt is longer than the model or its memory takes, or vLLM has stopped.
        """
        most = MOST if sampling.temperature else 1  # vLLM refuses n where the answers would be the same
        asked = [place for place, numbers in enumerate(samples) if numbers]
        if not asked:
            return

        def jobs(place: int, prompt: list[int]) -> list[Job]:
            parts = runs(samples[place], most)
            seeds = [seed_of(seed, requests[place].key, part.start) for part in parts]
            return [
                Job(place, prompt, part, self._drawing(sampling, own, len(part)))
                for part, own in zip(parts, seeds, strict=True)
            ]

        for drawn in self._run(jobs(place, prompt) for place, prompt in self._in_order(requests, asked, 1)):
            tally.add("tokens", len(drawn.tokens))
            yield drawn.job.place, drawn.number, self._reply(drawn)

    def weigh(self, requests: Sequence[Request], choices: Sequence[str]) -> Iterator[tuple[int, list[float]]]:
        """Log-probabilities of the choices as beginnings of the answer, prompt by prompt.

        Raises:
            InputError: a prompt is longer than the model or its memory takes, or vLLM has stopped.
        """
        if not requests:
            return
        ends = [self.renderer.encode(choice) for choice in choices]
        prompts = self._in_order(requests, range(len(requests)), max(map(len, ends), default=0) + 1)
        yield from scores(self._run, prompts, ends)

    def count_tokens(self, request: Request) -> int:
        """Tokens of the rendered prompt."""
        return len(self.renderer.prompt(request.messages, request.persona))

    @property
    def max_prompt_tokens(self) -> int:
        """As configured, as far as there is room for an answer."""
        longest = self.settings.max_model_len or self._found.longest or sys.maxsize
        return min(self.model.max_prompt_tokens, longest - ROOM)

    @property
    def identity(self) -> str:
        """Model, template and persona's role, the kind of number that is computed with, and what is kept."""
        template, role = self.renderer.template_hash, self.renderer.persona_role
        number, logprobs = number_of(self.settings), self.settings.logprobs
        return f"vllm {self._found.weights} {template} {role} {number} logprobs={logprobs}"

    def _in_order(
        self, requests: Sequence[Request], places: Iterable[int], room: int
    ) -> Iterator[tuple[int, list[int]]]:
        """Prompts as tokens, with their places, ordered by their text; ``room`` tokens have to fit behind each."""
        longest = min(replica.max_model_len for replica in self._replicas)
        texts = {i: self.renderer.text(requests[i].messages, requests[i].persona) for i in places}
        for place in sorted(texts, key=texts.__getitem__):
            prompt = self.renderer.encode(texts[place])
            if len(prompt) + room > longest:
                raise InputError(
                    f"{requests[place].key}: a prompt of {len(prompt)} tokens does not fit into the model's "
                    f"{longest}; lower model.max_prompt_tokens, or raise engine.vllm.max_model_len"
                )
            yield place, prompt

    def _run(self, groups: Iterator[list[Job]]) -> Iterator[Drawn]:
        """What the jobs give; those of a group, and neighbouring groups, go to the same copy of the model."""
        if len(self._replicas) == 1:
            found = self._replicas[0].run(chain.from_iterable(groups))
        else:
            shared = Shared(groups, NEIGHBOURS)
            lots = [chain.from_iterable(chain.from_iterable(shared)) for _ in self._replicas]
            found = together([replica.run(lot) for replica, lot in zip(self._replicas, lots, strict=True)])
        with closing(found):
            for drawn in found:
                tally.add("prompt_tokens", len(drawn.job.prompt))
                tally.add("cached_tokens", drawn.cached)
                yield drawn

    def _drawing(self, sampling: SamplingConfig, seed: int, n: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=seed,
            logprobs=0 if self.settings.logprobs else None,  # of the token that was drawn, and of no other
            stop_token_ids=[self.renderer.end],
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,  # one of n samples comes when it is finished, not when all are
        )

    def _reply(self, drawn: Drawn) -> Reply:
        if drawn.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vllm ended an answer for no reason that is known: {drawn.finish_reason}")
        ended = drawn.finish_reason == "stop"
        said = drawn.tokens[:-1] if ended else drawn.tokens
        text = self.renderer.tokenizer.decode(said, skip_special_tokens=True).strip()
        return Reply(text, "stop" if ended else "length", drawn.logprob)


def _close(replicas: Sequence[Replica]) -> None:
    for replica in replicas:
        replica.close()

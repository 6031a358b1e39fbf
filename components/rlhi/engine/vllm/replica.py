"""One copy of the model in vLLM, driven step by step, so that each answer comes when it is finished.

vLLM's own `LLM.generate` gives everything at the end; here what a killed run had already is in the store. vLLM takes
requests in the order in which they are given, and each reads the blocks of prompt tokens that those before it fill, in
the same step too: where prompts come in order, the first of a prefix warms it for the rest.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhi.engine.vllm.told import Told
from rlhi.engine.vllm.watch import Watch
from rlhi.errors import InputError


@dataclass(frozen=True, slots=True)
class Job:
    """One request: ``samples`` of ``prompt``, drawn in the way of ``params`` (vLLM's); ``place`` is the caller's."""

    place: int
    prompt: list[int]
    samples: range
    params: Any


@dataclass(slots=True)
class Drawn:
    """A sample of a job: its tokens with the one that ends it, and the sum of their log-probabilities, if asked for.

    ``cached`` counts the prompt's tokens that came out of the cache; ``rows`` has the log-probabilities of the prompt's
    own tokens, if asked for, those that came out of the cache left out or meaningless.
    """

    job: Job
    number: int
    tokens: list[int]
    finish_reason: str = ""
    logprob: float | None = None
    cached: int = 0
    rows: list[float] | None = None


class Replica:
    """A model in vLLM: ``engine`` is an LLMEngine, ``told`` what its processes write. One `run` at a time.

    With an ``adapter`` (LoRA) all requests go through it. It is not merged: that would round it to what bfloat16 holds.
    """

    def __init__(self, engine: Any, told: Told, watch: Watch, adapter: Path | None = None) -> None:
        self._engine = engine
        self._adapter = adapter
        self._told = told
        self._watch = watch
        self._window = 2 * self._engine.vllm_config.scheduler_config.max_num_seqs
        self._count = 0
        self._left = 0  # samples under way
        self._under_way: dict[str, dict[int, Drawn]] = {}

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer."""
        found: int = self._engine.model_config.max_model_len
        return found

    def run(self, jobs: Iterator[Job]) -> Generator[Drawn, None, None]:
        """Each sample as it is finished. Jobs are taken as there is room; closed early, it ends what is under way."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            while self._fill(jobs):
                for output in self._engine.step():
                    yield from self._finished(output)
        except EngineDeadError:
            self._under_way.clear()
            raise InputError(f"vllm has stopped: {self._told.cause()}; what was answered before is kept") from None
        finally:
            if self._under_way:
                self._engine.abort_request(list(self._under_way))
            self._under_way.clear()
            self._left = 0

    def forget(self) -> None:
        """Empties the cache of prefixes."""
        self._engine.reset_prefix_cache()

    def close(self) -> None:
        """Ends vLLM's processes and so frees the memory of their GPUs."""
        self._engine.engine_core.shutdown()
        self._watch.end()
        self._told.close()

    def _fill(self, jobs: Iterator[Job]) -> bool:
        """Gives vLLM as much as it can compute at once and as much again; whether anything is under way."""
        from vllm.inputs import tokens_input
        from vllm.lora.request import LoRARequest

        lora = None if self._adapter is None else LoRARequest("policy", 1, str(self._adapter))
        while self._left < self._window and (job := next(jobs, None)) is not None:
            self._count += 1
            self._left += len(job.samples)
            self._engine.add_request(str(self._count), tokens_input(job.prompt), job.params, lora_request=lora)
            self._under_way[str(self._count)] = {i: Drawn(job, k, []) for i, k in enumerate(job.samples)}
        return bool(self._under_way)

    def _finished(self, output: Any) -> Iterator[Drawn]:
        """The samples that ``output`` ends; of the others it holds the first token."""
        drawn = self._under_way[output.request_id]
        for part in output.outputs:
            sample = drawn[part.index]
            sample.tokens += part.token_ids
            if output.prompt_logprobs:
                sample.rows = output.prompt_logprobs.logprobs
            if part.finish_reason is None:
                continue
            sample.finish_reason, sample.logprob = part.finish_reason, part.cumulative_logprob
            sample.cached = output.num_cached_tokens or 0
            del drawn[part.index]
            self._left -= 1
            if not drawn:
                del self._under_way[output.request_id]
            yield sample

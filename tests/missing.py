"""A fake engine that gives no answer to some requests, and why."""

from collections.abc import Iterator, Mapping, Sequence

from rlhi.config import SamplingConfig
from rlhi.engine import Engine, Reply, Request, Scores
from rlhi.records import Missing


class LackingEngine:
    """``engine``, but requests whose last message holds a text of ``lacking`` stay without an answer."""

    identity = "lacking"
    max_prompt_tokens = 4096

    def __init__(self, engine: Engine, lacking: Mapping[str, Missing]) -> None:
        self._engine = engine
        self._lacking = lacking

    def stream(
        self, requests: Sequence[Request], sampling: SamplingConfig, samples: Sequence[Sequence[int]], seed: int
    ) -> Iterator[tuple[int, int, Reply]]:
        for place, number, reply in self._engine.stream(requests, sampling, samples, seed):
            why = self._why(requests[place])
            yield place, number, reply if why is None else Reply("", "stop", None, why)

    def weigh(self, requests: Sequence[Request], choices: Sequence[str]) -> Iterator[tuple[int, Scores]]:
        for place, scores in self._engine.weigh(requests, choices):
            yield place, self._why(requests[place]) or scores

    def count_tokens(self, request: Request) -> int:
        return self._engine.count_tokens(request)

    def _why(self, request: Request) -> Missing | None:
        return next((why for text, why in self._lacking.items() if text in request.messages[-1].content), None)

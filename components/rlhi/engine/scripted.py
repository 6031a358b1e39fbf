"""A fake language model for tests and dry runs: it says what it was told to say."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rlhi.config import EngineConfig, SamplingConfig
from rlhi.engine import Reply, Request
from rlhi.errors import InputError


class ScriptedEngine:
    """Answers with ``reply(request, sample index)``; prefers the choice that ``reply(request, 0)`` names.

    A choice's log-probability is 0 where it is named and -1 elsewhere, so a reply that names none leaves all equal.
    """

    def __init__(self, reply: Callable[[Request, int], str], max_prompt_tokens: int = 4096) -> None:
        self._reply = reply
        self._max_prompt_tokens = max_prompt_tokens

    def generate(self, requests: Sequence[Request], sampling: SamplingConfig, n: int, seed: int) -> list[list[Reply]]:
        """``n`` replies to each request; a reply is cut at ``max_tokens`` words."""
        del seed
        return [[self._answer(request, index, sampling) for index in range(n)] for request in requests]

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[list[float]]:
        """0 for the choice that the reply equals, -1 for the others."""
        return [[0.0 if choice == self._reply(request, 0) else -1.0 for choice in choices] for request in requests]

    def count_tokens(self, request: Request) -> int:
        """Words, as good as tokens for a fake."""
        return sum(len(message.content.split()) for message in request.messages)

    @property
    def max_prompt_tokens(self) -> int:
        """As given."""
        return self._max_prompt_tokens

    def _answer(self, request: Request, index: int, sampling: SamplingConfig) -> Reply:
        words = self._reply(request, index).split(" ")
        cut = len(words) > sampling.max_tokens
        return Reply(" ".join(words[: sampling.max_tokens]), "length" if cut else "stop", -float(len(words)))


def load(config: EngineConfig) -> ScriptedEngine:
    """Rules from a JSON file: a list of ``{"contains": text, "reply": text}``; the first whose text the last message
    contains answers, ``""`` matches all. ``{n}`` in a reply is the number of the sample.

    Raises:
        InputError: no such file, or not such a list.
    """
    try:
        written = json.loads(Path(config.script or "").read_text())
        if not isinstance(written, list):
            raise TypeError("not a list")
        rules = [(rule["contains"], rule["reply"]) for rule in written]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"engine.script={config.script!r}: cannot be read ({error}); give a JSON list of "
            '{"contains": "...", "reply": "..."}'
        ) from None

    def reply(request: Request, index: int) -> str:
        asked = request.messages[-1].content
        found = next((answer for contains, answer in rules if contains in asked), "")
        return str(found).replace("{n}", str(index))

    return ScriptedEngine(reply, config.model.max_prompt_tokens)

"""A fake language model for tests and dry runs: it says what it was told to say."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rlhi.config import EngineConfig, SamplingConfig, digest
from rlhi.engine import Reply, Request
from rlhi.errors import InputError


class ScriptedEngine:
    """Answers with ``reply(request, sample number)``; prefers the choice that ``reply(request, 0)`` names.

    A choice's log-probability is 0 where it is named and -1 elsewhere, so a reply that names none leaves all equal.
    ``hear`` is told the key and the number of each reply before it is given.
    """

    def __init__(
        self,
        reply: Callable[[Request, int], str],
        max_prompt_tokens: int = 4096,
        identity: str = "scripted",
        hear: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        self._reply = reply
        self._max_prompt_tokens = max_prompt_tokens
        self._identity = identity
        self._hear = hear

    def stream(
        self, requests: Sequence[Request], sampling: SamplingConfig, samples: Sequence[Sequence[int]], seed: int
    ) -> Iterator[tuple[int, int, Reply]]:
        """Replies in order; a reply is cut at ``max_tokens`` words."""
        del seed
        for place, (request, numbers) in enumerate(zip(requests, samples, strict=True)):
            for number in numbers:
                self._hear(request.key, number)
                yield place, number, self._answer(request, number, sampling)

    def weigh(self, requests: Sequence[Request], choices: Sequence[str]) -> Iterator[tuple[int, list[float]]]:
        """0 for the choice that the reply equals, -1 for the others."""
        for place, request in enumerate(requests):
            self._hear(request.key, 0)
            yield place, [0.0 if choice == self._reply(request, 0) else -1.0 for choice in choices]

    def count_tokens(self, request: Request) -> int:
        """Words, as good as tokens for a fake."""
        return sum(len(message.content.split()) for message in request.messages)

    @property
    def max_prompt_tokens(self) -> int:
        """As given."""
        return self._max_prompt_tokens

    @property
    def identity(self) -> str:
        """As given."""
        return self._identity

    def _answer(self, request: Request, index: int, sampling: SamplingConfig) -> Reply:
        words = self._reply(request, index).split(" ")
        cut = len(words) > sampling.max_tokens
        return Reply(" ".join(words[: sampling.max_tokens]), "length" if cut else "stop", -float(len(words)))


def load(config: EngineConfig) -> ScriptedEngine:
    """Rules from a JSON file: a list of ``{"contains": text, "reply": text}``; the first whose text the last message
    contains answers, ``""`` matches all. ``{n}`` in a reply is the number of the sample.

    For rehearsals the file can be ``{"rules": [...], "delay": 0.01, "log": path}`` instead: each reply takes so many
    seconds, and what is asked for is appended to the log, one line each.

    Raises:
        InputError: no such file, or not such a list.
    """
    try:
        written = json.loads(Path(config.script or "").read_text())
        if isinstance(written, list):
            written = {"rules": written}
        rules = [(rule["contains"], rule["reply"]) for rule in written["rules"]]
        hear = _hearing(written)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"engine.script={config.script!r}: cannot be read ({error}); give a JSON list of "
            '{"contains": "...", "reply": "..."}'
        ) from None

    def reply(request: Request, index: int) -> str:
        asked = request.messages[-1].content
        found = next((answer for contains, answer in rules if contains in asked), "")
        return str(found).replace("{n}", str(index))

    return ScriptedEngine(reply, config.model.max_prompt_tokens, f"scripted {digest(json.dumps(rules))}", hear)


def _hearing(written: dict[str, Any]) -> Callable[[str, int], None]:
    delay, path = float(written.get("delay", 0)), written.get("log")

    def hear(key: str, number: int) -> None:
        if path is not None:
            with Path(path).open("a") as file:
                file.write(f"{key} {number}\n")
        time.sleep(delay)

    return hear

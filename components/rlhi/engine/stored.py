"""An engine that asks only for what the store of replies does not have."""

import hashlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rlhi.config import SamplingConfig, as_json
from rlhi.engine import Engine, Reply, Request, tally
from rlhi.engine.store import Store
from rlhi.errors import InputError
from rlhi.progress import bar, silent
from rlhi.render import prompt

log = logging.getLogger("rlhi")
CHOICES_AT_ONCE = 64
WAIT = 0.2  # seconds between looks at what another process was asked for
Ask = Callable[[list[bytes]], Iterator[tuple[bytes, str]]]


class StoredEngine:
    """``engine`` behind ``store``: what is there is not asked for, what comes is kept at once.

    A reply is kept by the engine's identity, messages, persona as it is rendered, sampling, seed, the request's key
    (random numbers hang on it) and the number of the sample; choices by identity, messages, persona and their texts.
    ``at_once`` requests are chosen for, and stored, together: what a kill costs at most.
    """

    def __init__(self, engine: Engine, store: Store, at_once: int = CHOICES_AT_ONCE) -> None:
        self.engine = engine
        self.at_once = at_once
        self.store = store
        self.identity = engine.identity

    def stream(
        self, requests: Sequence[Request], sampling: SamplingConfig, samples: Sequence[Sequence[int]], seed: int
    ) -> Iterator[tuple[int, int, Reply]]:
        """What is stored first, then the rest as it comes."""
        places: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
        for place, (request, numbers) in enumerate(zip(requests, samples, strict=True)):
            start = self._digest(request, "reply", as_json(sampling), seed, request.key)
            for number in numbers:
                places[_numbered(start, number)].append((place, number))

        def ask(keys: list[bytes]) -> Iterator[tuple[bytes, str]]:
            names = {places[key][0]: key for key in keys}
            numbers: dict[int, list[int]] = defaultdict(list)
            for place, number in names:
                numbers[place].append(number)
            asked = list(numbers)
            wanted = [requests[place] for place in asked]
            for i, number, reply in self.engine.stream(wanted, sampling, list(numbers.values()), seed):
                yield names[asked[i], number], json.dumps([reply.text, reply.finish_reason, reply.logprob])

        for key, value in self._obtain(list(places), ask):
            reply = Reply(*self._read(value))
            yield from ((place, number, reply) for place, number in places[key])

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[list[float]]:
        """Log-probabilities, asked for and kept some requests at a time; those of similar length go together."""
        keys = [self._digest(request, "choice", *choices).digest() for request in requests]
        by_key = dict(zip(keys, requests, strict=True))

        def ask(missing: list[bytes]) -> Iterator[tuple[bytes, str]]:
            ordered = sorted(missing, key=lambda key: sum(len(said.content) for said in by_key[key].messages))
            for start in range(0, len(ordered), self.at_once):
                some = ordered[start : start + self.at_once]
                with silent():
                    found = self.engine.choose([by_key[key] for key in some], choices)
                yield from ((key, json.dumps(scores)) for key, scores in zip(some, found, strict=True))

        scores = {}
        stored = tally.count("stored")
        with bar("choosing", len(by_key)) as shown:
            for key, value in self._obtain(list(by_key), ask):
                scores[key] = self._read(value)
                shown.set_postfix_str(f"{tally.count('stored') - stored:.0f} from the store", refresh=False)
                shown.update()
        return [scores[key] for key in keys]

    def count_tokens(self, request: Request) -> int:
        """As the engine counts."""
        return self.engine.count_tokens(request)

    @property
    def max_prompt_tokens(self) -> int:
        """As the engine's."""
        return self.engine.max_prompt_tokens

    def _obtain(self, keys: list[bytes], ask: Ask) -> Iterator[tuple[bytes, str]]:
        """The value of every key: stored, asked for here, or asked for by another process and waited for."""
        missing = dict.fromkeys(keys)
        told = False
        while True:
            started = time.monotonic()
            for key, value in self.store.find(list(missing)):
                del missing[key]
                tally.add("stored")
                yield key, value
            if not missing:
                return
            with self.store.claim(list(missing)) as mine:
                for key, value in ask(mine) if mine else ():
                    self.store.put(key, value)
                    del missing[key]
                    tally.add("asked")
                    yield key, value
                if not missing.keys().isdisjoint(mine):
                    raise RuntimeError(f"{self.identity}: did not answer all that it was asked")
            if missing and not mine:
                if not told:
                    log.info("waiting for %d replies that another process has asked for", len(missing))
                told = True
                time.sleep(max(WAIT, time.monotonic() - started))

    def _digest(self, request: Request, *of: object) -> "hashlib._Hash":
        persona = None if request.persona is None else prompt("rlhi", "persona_guided.j2", persona=request.persona)
        said = [[message.role, message.content] for message in request.messages]
        return hashlib.sha256(json.dumps([self.identity, said, persona, of]).encode())

    def _read(self, value: str) -> list[Any]:
        try:
            found: list[Any] = json.loads(value)
        except ValueError:
            raise InputError(
                f"{self.store.path}: holds a broken reply; delete it, its replies are asked for again"
            ) from None
        return found


def _numbered(start: "hashlib._Hash", number: int) -> bytes:
    made = start.copy()
    made.update(str(number).encode())
    return made.digest()

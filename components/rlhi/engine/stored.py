"""An engine that asks only for what the store of replies does not have."""

import hashlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from rlhi.config import SamplingConfig, as_json
from rlhi.engine import UNANSWERED, Engine, Reply, Request, Scores, tally
from rlhi.engine.replies import Replies
from rlhi.errors import InputError
from rlhi.render import prompt

log = logging.getLogger("rlhi")
Ask = Callable[[list[bytes]], Iterator[tuple[bytes, str | None]]]


class StoredEngine:
    """``engine`` behind ``store``: what is there is not asked for, what comes is kept at once.

    A reply is kept by the engine's identity, messages, persona as it is rendered, sampling, seed, the request's key
    (random numbers hang on it) and the number of the sample; choices by identity, messages, persona and their texts.

    What was filtered is kept as well: the same prompt would meet the same filter, and be paid for again. What was not
    answered is not kept: another time it may be.
    """

    def __init__(self, engine: Engine, store: Replies) -> None:
        self.engine = engine
        self.store = store
        self.identity = engine.identity

    def stream(
        self, requests: Sequence[Request], sampling: SamplingConfig, samples: Sequence[Sequence[int]], seed: int
    ) -> Iterator[tuple[int, int, Reply]]:
        """What is stored first, then the rest as it comes."""
        places: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
        drawn = as_json(sampling)
        for place, (request, numbers) in enumerate(zip(requests, samples, strict=True)):
            start = self._digest(request, "reply", drawn, seed, request.key)
            for number in numbers:
                places[_numbered(start, number)].append((place, number))

        def ask(keys: list[bytes]) -> Iterator[tuple[bytes, str | None]]:
            names = {places[key][0]: key for key in keys}
            numbers: dict[int, list[int]] = defaultdict(list)
            for place, number in names:
                numbers[place].append(number)
            asked = list(numbers)
            wanted = [requests[place] for place in asked]
            for i, number, reply in self.engine.stream(wanted, sampling, list(numbers.values()), seed):
                yield names[asked[i], number], _written(reply)

        for key, value in obtain(self.store, list(places), ask):
            reply = UNANSWERED if value is None else Reply(*load_value(self.store, value))
            yield from ((place, number, reply) for place, number in places[key])

    def weigh(self, requests: Sequence[Request], choices: Sequence[str]) -> Iterator[tuple[int, Scores]]:
        """What is stored first, then the rest as it comes."""
        places: dict[bytes, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            places[self._digest(request, "choice", *choices).digest()].append(place)

        def ask(keys: list[bytes]) -> Iterator[tuple[bytes, str | None]]:
            wanted = [requests[places[key][0]] for key in keys]
            for i, scores in self.engine.weigh(wanted, choices):
                yield keys[i], None if scores == "unanswered" else json.dumps(scores)

        for key, value in obtain(self.store, list(places), ask):
            scores: Scores = "unanswered" if value is None else load_value(self.store, value)
            yield from ((place, scores) for place in places[key])

    def count_tokens(self, request: Request) -> int:
        """As the engine counts."""
        return self.engine.count_tokens(request)

    @property
    def max_prompt_tokens(self) -> int:
        """As the engine's."""
        return self.engine.max_prompt_tokens

    def _digest(self, request: Request, *of: object) -> "hashlib._Hash":
        persona = None if request.persona is None else _rendered(request.persona)
        said = [[message.role, message.content] for message in request.messages]
        return hashlib.sha256(json.dumps([self.identity, said, persona, of]).encode())


def obtain(
    store: Replies, keys: list[bytes], ask: Ask, counts: tuple[tally.Name, tally.Name] = ("asked", "stored")
) -> Iterator[tuple[bytes, str | None]]:
    """The value of every key: stored, asked for here, or asked for by another process and waited for.

    ``ask`` yields each key that it is given with its value, which is kept at once; null is not kept. ``counts`` names
    what is counted.
    """
    missing = dict.fromkeys(keys)
    told = False
    while True:
        started = time.monotonic()
        for key, value in store.find(list(missing)):
            del missing[key]
            tally.add(counts[1])
            yield key, value
        if not missing:
            return
        with store.claim(list(missing)) as mine:
            for key, new in ask(mine) if mine else ():
                if new is not None:
                    store.put(key, new)
                del missing[key]
                tally.add(counts[0])
                yield key, new
            if not missing.keys().isdisjoint(mine):
                raise RuntimeError("who was asked did not answer all")
        if missing and not mine:
            if not told:
                log.info("waiting for %d replies that another worker has asked for", len(missing))
            told = True
            time.sleep(max(store.pause, time.monotonic() - started))


def load_value(store: Replies, value: str) -> Any:
    """A stored value.

    Raises:
        InputError: it is broken.
    """
    try:
        return json.loads(value)
    except ValueError:
        raise InputError(f"{store.place}: holds a broken reply; delete it, its replies are asked for again") from None


def _written(reply: Reply) -> str | None:
    if reply.missing == "unanswered":
        return None
    said = [reply.text, reply.finish_reason, reply.logprob]
    return json.dumps(said if reply.missing is None else [*said, reply.missing])


@lru_cache(4096)  # a user's persona is part of each of the user's requests
def _rendered(persona: str) -> str:
    return prompt("rlhi", "persona_guided.j2", persona=persona)


def _numbered(start: "hashlib._Hash", number: int) -> bytes:
    made = start.copy()
    made.update(str(number).encode())
    return made.digest()

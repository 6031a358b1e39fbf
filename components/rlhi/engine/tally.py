"""Counts what models are asked in this process: for progress on screen, and for the metrics of a stage.

``asked`` and ``stored`` are replies and choices that a model gave and that came out of the store; ``tokens`` were
generated in ``seconds``, where an engine knows.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Name = Literal["asked", "stored", "tokens", "seconds"]
_TOTAL: Counter[Name] = Counter()


def add(name: Name, amount: float = 1) -> None:
    """Counts on."""
    _TOTAL[name] += amount  # type: ignore[assignment]  # seconds are no whole number


def count(name: Name) -> float:
    """What there is since the process began."""
    return _TOTAL[name]


@contextmanager
def timed() -> Iterator[None]:
    """Adds the time in here to the seconds of generating."""
    started = time.monotonic()
    try:
        yield
    finally:
        add("seconds", time.monotonic() - started)


@contextmanager
def counted() -> Iterator[Counter[Name]]:
    """Gives a counter that holds, at the end, what was counted in here."""
    before, found = _TOTAL.copy(), Counter[Name]()
    yield found
    found.update(_TOTAL - before)


def metrics(counts: Counter[Name]) -> dict[str, float]:
    """``replies/asked`` and ``replies/stored``; none where no model was asked through a store."""
    if not counts["asked"] and not counts["stored"]:
        return {}
    return {"replies/asked": float(counts["asked"]), "replies/stored": float(counts["stored"])}


def told(counts: Counter[Name]) -> str:
    """The same as a line for the log, with the speed where it is known; empty where there is nothing to say."""
    parts = []
    if metrics(counts):
        parts.append(f"{counts['asked']} replies asked for, {counts['stored']} from the store")
    if counts["tokens"] and counts["seconds"]:
        parts.append(f"{counts['tokens'] / counts['seconds']:.0f} tokens/s")
    return ", ".join(parts)

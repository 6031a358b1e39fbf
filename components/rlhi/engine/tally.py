"""Counts what models are asked in this process: for progress on screen, curves, and the metrics of a stage.

``given`` are replies and choices that stages got; where there is a store of replies, ``asked`` of them came from a
model and ``stored`` out of the store; ``scored`` and ``scores_stored`` are the same of scored rows. ``seconds`` is
the time that stages waited for them. ``prompt_tokens`` were read, ``cached_tokens`` of them from the cache of a shared
prefix, and ``tokens`` written, as far as an engine knows. An engine that asks a server counts ``sent`` requests, tries
that are ``retried`` and replies that stay ``unanswered``, by cause, those of them that were ``given_up`` and may come
another time, and their ``cost`` in dollars.

None of it is the same in two equal runs: it tells what was done, and how fast, not what came out.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Name = Literal[
    "given",
    "asked",
    "stored",
    "scored",
    "scores_stored",
    "seconds",
    "prompt_tokens",
    "cached_tokens",
    "tokens",
    "sent",
    "retried",
    "unanswered",
    "given_up",
    "cost",
]
Counts = Counter[str]
GIVEN_UP = "replies/given_up"
PREFIXES = ("replies/", "scores/", "tokens/", "requests/", "cost/")  # of the metrics made here
_TOTAL: Counts = Counter()
_WAITING: list[float] = []  # when whoever waits for a model began to


def add(name: Name, amount: float = 1, cause: str = "") -> None:
    """Counts on."""
    _TOTAL[f"{name}/{cause}" if cause else name] += amount  # type: ignore[assignment]  # dollars are no whole number


def count(name: Name) -> float:
    """What there is since the process began."""
    return _TOTAL[name]


@contextmanager
def timed() -> Iterator[None]:
    """Counts the time in here as seconds of waiting, while it passes."""
    if _WAITING:
        yield
        return
    _WAITING.append(time.monotonic())
    try:
        yield
    finally:
        add("seconds", time.monotonic() - _WAITING.pop())


def since() -> Callable[[], Counts]:
    """What will have been counted from now on, whenever that is asked."""
    before = _now()
    return lambda: _now() - before


def metrics(counts: Counts) -> dict[str, float]:
    """The counts, and how many a second, as metrics of a stage; what is zero is left out.

    ``replies/asked``, ``replies/stored``, ``replies/per_s``; ``scores/asked``, ``scores/stored``; ``tokens/prompt`` and
    ``tokens/generated``, each with its ``_per_s``, and ``tokens/prefix_cached``; ``requests/sent``,
    ``requests/retried/CAUSE`` and ``requests/unanswered/CAUSE``; ``replies/given_up``; ``cost/usd``.
    """
    amounts = {
        "replies/per_s": _rate(counts, "given"),
        "scores/asked": counts["scored"],
        "scores/stored": counts["scores_stored"],
        "tokens/prompt": counts["prompt_tokens"],
        "tokens/prefix_cached": counts["cached_tokens"],
        "tokens/generated": counts["tokens"],
        "tokens/prompt_per_s": _rate(counts, "prompt_tokens"),
        "tokens/generated_per_s": _rate(counts, "tokens"),
        "requests/sent": counts["sent"],
        GIVEN_UP: counts["given_up"],
        **{f"requests/{name}": n for name, n in counts.items() if name.startswith(("retried/", "unanswered/"))},
        "cost/usd": counts["cost"],
    }
    return _replies(counts) | {name: float(n) for name, n in amounts.items() if n}


def told(counts: Counts) -> str:
    """The same as a line for the log; empty where there is nothing to say."""
    return "; ".join(_told(counts))


def short(counts: Counts) -> str:
    """What a progress bar says beside replies per second and time left."""
    parts = []
    if counts["stored"]:
        parts.append(f"{counts['stored']:,.0f} from the store")
    if counts["tokens"]:
        parts.append(f"{_rate(counts, 'tokens'):,.0f} tok/s")
    if counts["cached_tokens"]:
        parts.append(f"{_cached(counts):.0%} of prompts cached")
    if counts["cost"]:
        parts.append(f"${counts['cost']:.2f}")
    return ", ".join([*parts, *_by_cause(counts, "retried", "tries again")])


def points(counts: Counts, before: Counts, seconds: float) -> dict[str, float]:
    """What there is to plot of the ``seconds`` in which ``before`` became ``counts``; none where nothing was asked."""
    new = counts - before
    amounts = {
        "replies": counts["given"],
        "replies_stored": counts["stored"],
        "replies_per_s": new["given"] / seconds,
        "tokens_prompt_per_s": new["prompt_tokens"] / seconds,
        "tokens_generated_per_s": new["tokens"] / seconds,
        "tokens_prefix_cached": _cached(counts),
        "retried": _causes(counts, "retried").total(),
        "cost_usd": counts["cost"],
    }
    return {name: float(amount) for name, amount in amounts.items() if amount or name == "replies_per_s"}


def _now() -> Counts:
    found = _TOTAL.copy()
    for started in _WAITING:
        found["seconds"] += time.monotonic() - started  # type: ignore[assignment]
    return found


def _told(counts: Counts) -> Iterator[str]:
    if replies := _replies(counts):
        asked, stored = replies.values()
        speed = f" ({_rate(counts, 'given'):,.3g}/s)" if counts["seconds"] else ""
        yield f"{asked:,.0f} replies asked for, {stored:,.0f} from the store{speed}"
    if counts["scored"] or counts["scores_stored"]:
        yield f"{counts['scored']:,.0f} rows scored, {counts['scores_stored']:,.0f} from the store"
    if counts["prompt_tokens"]:
        yield f"{counts['prompt_tokens']:,.0f} prompt tokens, {_cached(counts):.0%} of them prefix-cached"
    if counts["tokens"]:
        speed = f" ({_rate(counts, 'tokens'):,.0f}/s)" if counts["seconds"] else ""
        yield f"{counts['tokens']:,.0f} tokens generated{speed}"
    yield from _by_cause(counts, "retried", "tries again")
    yield from _by_cause(counts, "unanswered", "without an answer")
    if counts["cost"]:
        yield f"${counts['cost']:.2f}"


def _replies(counts: Counts) -> dict[str, float]:
    """How many were asked for and how many were stored; without a store, all were asked for."""
    asked, stored = counts["asked"], counts["stored"]
    if not (asked or stored):
        asked = counts["given"]
    return {"replies/asked": float(asked), "replies/stored": float(stored)} if asked or stored else {}


def _rate(counts: Counts, name: Name) -> float:
    """A second of waiting; zero where nobody waited."""
    return round(counts[name] / counts["seconds"], 2) if counts["seconds"] else 0.0


def _cached(counts: Counts) -> float:
    """The share of prompt tokens that a prefix cache gave."""
    return counts["cached_tokens"] / counts["prompt_tokens"] if counts["prompt_tokens"] else 0.0


def _causes(counts: Counts, name: Name) -> Counts:
    start = f"{name}/"
    return Counter({key.removeprefix(start): n for key, n in counts.items() if key.startswith(start)})


def _by_cause(counts: Counts, name: Name, what: str) -> list[str]:
    causes = _causes(counts, name)
    listed = ", ".join(f"{cause} {n:,}" for cause, n in causes.most_common())
    return [f"{causes.total():,} {what} ({listed})"] if causes else []

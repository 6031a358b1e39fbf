"""What goes over the wire: the bodies of chat completions, and what is read out of the answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from rlhi.config import SamplingConfig
from rlhi.records import Message


class UnreadableError(Exception):
    """The body is not the answer that was asked for; asking again may help."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was drawn, its log-probability, and those of the likeliest tokens in its place."""

    text: str
    logprob: float
    others: dict[str, float]


@dataclass(frozen=True, slots=True)
class Said:
    """One sample. ``tokens`` is null where the server gives no log-probabilities."""

    text: str
    finish_reason: str
    tokens: tuple[Token, ...] | None

    @property
    def logprob(self) -> float | None:
        """The sum over the tokens, in nats; null where unknown."""
        return None if self.tokens is None else sum(token.logprob for token in self.tokens)


@dataclass(frozen=True, slots=True)
class Completion:
    """The samples of one request, and the tokens that the server counted; null where it does not say.

    ``tokens_cached`` of the prompt's came out of the server's prefix cache; vLLM says so if it is started with
    --enable-prompt-tokens-details.
    """

    said: tuple[Said, ...]
    tokens_in: int | None
    tokens_out: int | None
    tokens_cached: int | None


def body(model: str, messages: Sequence[Message], fields: Mapping[str, Any]) -> bytes:
    """The request as JSON; a field that is null is left out."""
    said = [{"role": message.role, "content": message.content} for message in messages]
    asked = {name: value for name, value in fields.items() if value is not None}
    return orjson.dumps({"model": model, "messages": said, **asked})


def sampling_fields(sampling: SamplingConfig) -> dict[str, Any]:
    """How answers are drawn, in the names of the API."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_completion_tokens": sampling.max_tokens,
    }


def single(fields: Mapping[str, Any], later: int) -> dict[str, Any]:
    """``fields`` of a request for n samples, for the one that is ``later`` places behind the first."""
    seed = fields.get("seed")
    return {**fields, "n": None, "seed": None if seed is None else seed + later}


def read(raw: bytes) -> Completion:
    """The samples in the order of their numbers.

    Raises:
        UnreadableError: no JSON, or none of a chat completion with at least one sample.
    """
    try:
        answer = orjson.loads(raw)
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        usage = answer.get("usage") or {}
        said = tuple(_said(choice) for choice in choices)
        details = usage.get("prompt_tokens_details")
        counts = [_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))]
        counts.append(_count(details.get("cached_tokens")) if isinstance(details, dict) else None)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UnreadableError("invalid JSON" if not _is_json(raw) else "no chat completion") from None
    if not said:
        raise UnreadableError("no chat completion")
    return Completion(said, *counts)


def error_message(raw: bytes) -> tuple[str, str]:
    """What a server says of a refusal, and its code: OpenAI's and vLLM's form, else the beginning of the text."""
    try:
        told = orjson.loads(raw)
        found = told.get("error", told)
        return str(found["message"] if isinstance(found, dict) else found), str(_code(found))
    except (ValueError, KeyError, TypeError, AttributeError):
        return raw.decode(errors="replace"), ""


def _code(found: Any) -> str:
    return str(found.get("code") or "") if isinstance(found, dict) else ""


def _count(found: object) -> int | None:
    return found if isinstance(found, int) else None


def _is_json(raw: bytes) -> bool:
    try:
        orjson.loads(raw)
    except ValueError:
        return False
    return True


def _said(choice: Any) -> Said:
    text = choice["message"].get("content") or ""
    if not isinstance(text, str):
        raise TypeError("content is no text")
    written = (choice.get("logprobs") or {}).get("content")
    tokens = None if written is None else tuple(_token(token) for token in written)
    return Said(text.strip(), str(choice.get("finish_reason")), tokens)


def _token(written: Any) -> Token:
    others = {other["token"]: float(other["logprob"]) for other in written.get("top_logprobs") or []}
    return Token(written["token"], float(written["logprob"]), others)

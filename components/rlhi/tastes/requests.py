"""Everyday requests, each with eight answers of the same content: short or long, a list or prose, casual or formal.

Facts and sentences are in ``requests.yaml``; an answer is put together from them. Two families are asked about in the
test alone, and so are two subjects of every other family; one more of each is for choosing settings.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import resources
from random import Random
from typing import Any, Literal

import yaml

Use = Literal["train", "validation", "test"]
Length = Literal["short", "long"]
Structure = Literal["list", "prose"]
Tone = Literal["casual", "formal"]
Manner = tuple[Length, Structure, Tone]

MANNERS: tuple[Manner, ...] = tuple(itertools.product(("short", "long"), ("list", "prose"), ("casual", "formal")))
NEW_FAMILIES = ("games", "animals")  # in the test alone
SHORT, LONG = 2, 3  # points of an answer
OPENINGS: Mapping[Tone, Sequence[str]] = {
    "casual": ("Sure thing!", "Oh, that's a fun one!", "Hey, good question!", "Okay, here's the deal!"),
    "formal": ("Please note the following.", "The following points apply.", "Here is what is recommended."),
}
CLOSINGS: Mapping[Tone, Sequence[str]] = {
    "casual": ("You've got this!", "That's it, have fun!", "Easy, right? Enjoy!"),
    "formal": ("Further details are available on request.", "These points should be sufficient."),
}
_SHORTER = (  # how people write when they are at ease
    (r"\b(do|does|did|is|are|will|would|should|can|has|have)(n't| not)\b", None),
    (r"\b(I|you|they|we)\s(are|will|have)\b", {"are": "'re", "will": "'ll", "have": "'ve"}),
    (r"\b(it|that|what|there)\s(is|will)\b", {"is": "'s", "will": "'ll"}),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request of one user, and what there is to say to it."""

    id: str
    text: str
    points: tuple[tuple[str, str, str], ...]  # label, sentence, reason

    def answer(self, manner: Manner) -> str:
        """The answer in that manner; the same request and manner give the same text."""
        length, structure, tone = manner
        points = self.points[: LONG if length == "long" else SHORT]
        said = [_said(point, manner) for point in points]
        random = Random(f"{self.id} {tone}")
        opening, closing = random.choice(OPENINGS[tone]), random.choice(CLOSINGS[tone])
        if structure == "list":
            items = "\n".join(f"- {text}" for text in said)
            return f"{opening}\n{items}" if length == "short" else f"{opening}\n{items}\n{closing}"
        parts = [opening, *said] if length == "short" else [opening, *said, closing]
        return " ".join(parts)


def asks(use: Use) -> list[Ask]:
    """The requests for one ``use``, family by family, in their order in the file; each in all its wordings."""
    found = []
    for family, given in _given().items():
        for place, subject in enumerate(given["subjects"]):
            if _use(family, place) == use:
                found += [_ask(family, given, subject, k) for k in range(len(given["ask"]))]
    return found


def is_new(ask: Ask) -> bool:
    """Whether its whole family is asked about in the test alone."""
    return ask.id.split("/")[0] in NEW_FAMILIES


def _use(family: str, place: int) -> Use:
    if family in NEW_FAMILIES or place < 2:
        return "test"
    return "validation" if place == 2 else "train"


@lru_cache
def _given() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(resources.files(__package__).joinpath("requests.yaml").read_text())
    return found


def _ask(family: str, given: Mapping[str, Any], subject: str, wording: int) -> Ask:
    values = [*given["subjects"][subject], ""]
    points = zip(given["points"], values, strict=True)
    told = tuple((label, text.format(v=value), reason) for (label, text, reason), value in points)
    return Ask(f"{family}/{subject}/{wording}", given["ask"][wording].format(x=subject), told)


def _said(point: tuple[str, str, str], manner: Manner) -> str:
    """One point: as a sentence, with its reason where there is room, under its label in a list."""
    label, sentence, reason = point
    length, structure, tone = manner
    text = sentence if length == "short" else f"{sentence} {reason}"
    if tone == "casual":
        text = at_ease(text)
    return f"{label}: {text}" if structure == "list" else text


def at_ease(text: str) -> str:
    """The sentences with short forms, and the last one with an exclamation mark."""
    for pattern, endings in _SHORTER:
        text = re.sub(pattern, partial(_contracted, endings), text, flags=re.IGNORECASE)
    return text.removesuffix(".") + "!"


def _contracted(endings: Mapping[str, str] | None, found: re.Match[str]) -> str:
    first = found[1]
    if endings is not None:
        return first + endings[found[2].lower()]
    special = {"will": "won't", "can": "can't"}.get(first.lower(), f"{first}n't")
    return special.capitalize() if first[0].isupper() else special

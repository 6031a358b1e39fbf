"""What a person of known taste thinks of an answer, by rule: nobody is asked.

Each of three manners of a text is measured in [-1, 1] and saturates: an answer is long enough at some point, and more
words win nothing, so that neither a flood of text nor the place where it is cut decides. Sentences that repeat count
once. The reward is the mean of taste times measure over those that a person minds.
"""

import math
import re
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Literal

from rlhi.tastes.requests import Manner

Dimension = Literal["length", "structure", "tone"]
BRIEF, AMPLE = 32, 50  # words at which an answer is as short, or as long, as anyone would want
LISTED = 0.6  # share of words in list items that makes a list
EASY = 0.5  # casual marks by sentence that make a casual text
_ITEM = re.compile(r"^\s*(?:[-*•+]|\d+[.)])\s+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[A-Za-z0-9'’]+")
_MARK = re.compile(
    r"!|\b\w+(?:n['’]t|['’](?:re|ll|ve))\b|\b(?:it|that|there|here|what|let)['’]s\b"
    r"|\b(?:hey|okay|sure|yeah|wow|cool|oh|haha|awesome|yep)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Taste:
    """What a person likes: 1 or -1 each, for long, for lists, for casual answers; 0 does not mind."""

    length: int
    structure: int
    tone: int

    @property
    def opposite(self) -> "Taste":
        """The taste of who likes none of it."""
        return Taste(-self.length, -self.structure, -self.tone)

    def but(self, dimension: Dimension) -> "Taste":
        """The taste of who differs in that dimension alone."""
        return replace(self, **{dimension: -getattr(self, dimension)})

    @property
    def manner(self) -> Manner:
        """The answers that please such a person most."""
        return (
            "long" if self.length > 0 else "short",
            "list" if self.structure > 0 else "prose",
            "casual" if self.tone > 0 else "formal",
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """How long, how much of a list and how casual a text is, each in [-1, 1]."""

    length: float
    structure: float
    tone: float


@lru_cache(maxsize=8192)  # of the same answers, over and over, where a crowd is asked
def measure(text: str) -> Measured:
    """The three measures of a text; an empty one is as short, plain and formal as can be."""
    sentences = _sentences(text)
    words = sum(len(_WORD.findall(sentence)) for sentence in dict.fromkeys(sentences))
    return Measured(_length(words), _structure(text), _tone(text, len(sentences)))


def reward(taste: Taste, text: str) -> float:
    """How much a person of that taste likes the text, in [-1, 1]."""
    own, found = astuple(taste), astuple(measure(text))
    liked = math.fsum(like * value for like, value in zip(own, found, strict=True))
    minded: int = sum(map(abs, own))
    return liked / minded


def _length(words: int) -> float:
    middle, half = math.sqrt(BRIEF * AMPLE), math.log(AMPLE / BRIEF) / 2
    return max(-1.0, min(1.0, math.log(max(1, words) / middle) / half))


def _structure(text: str) -> float:
    lines = [line for line in text.splitlines() if line.strip()]
    words = [len(_WORD.findall(line)) for line in lines]
    listed = sum(count for line, count in zip(lines, words, strict=True) if _ITEM.match(line))
    return 2 * min(1.0, listed / max(1, sum(words)) / LISTED) - 1


def _tone(text: str, sentences: int) -> float:
    return 2 * min(1.0, len(_MARK.findall(text)) / max(1, sentences) / EASY) - 1


def _sentences(text: str) -> list[str]:
    found = (_ITEM.sub("", part).strip() for part in _SENTENCE.split(text))
    return [part for part in found if _WORD.search(part)]

"""Simulated users whose tastes are known, and personas that say them, each time in other words.

A persona is a few sentences about a user in the third person, as the persona stage writes them: one for each taste, and
one or two that have nothing to do with answers. A taste is said for what is liked ("prefers short answers"), as the
persona stage mostly does; said against the opposite ("does not like long answers") it is a harder test.
"""

import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from importlib import resources
from random import Random
from typing import Any, Literal

import yaml

from rlhi.tastes.requests import Use
from rlhi.tastes.rule import Dimension, Taste

Said = Literal["for", "against"]
POLES = (("short", "long"), ("prose", "list"), ("formal", "casual"))  # what -1 and 1 are called
DIMENSIONS: tuple[Dimension, ...] = ("length", "structure", "tone")
MAJORITY = Taste(1, 1, -1)  # Table 1: most want expansive, structured and serious answers
SHARE = 0.6  # of the training users who want what the majority does, in each of the three


@dataclass(frozen=True, slots=True)
class Person:
    """A simulated user; ``others`` are one or two things that have nothing to do with answers."""

    id: str
    taste: Taste
    others: tuple[str, ...]


def all_tastes(dimensions: Sequence[Dimension] = DIMENSIONS) -> list[Taste]:
    """Every taste of people who mind just these dimensions."""
    likes = [(-1, 1) if name in dimensions else (0,) for name in DIMENSIONS]
    return [Taste(*each) for each in itertools.product(*likes)]


def training_people(count: int, seed: int, dimensions: Sequence[Dimension] = DIMENSIONS) -> list[Person]:
    """Users to learn from: every taste occurs, that of the majority more often."""
    every = all_tastes(dimensions)
    random = Random(f"{seed} people")
    tastes = [*every, *random.choices(every, [_weight(taste) for taste in every], k=count)][:count]
    return [_person(f"train-{place}", taste, "train", random) for place, taste in enumerate(tastes)]


def balanced_people(each: int, use: Use, seed: int, dimensions: Sequence[Dimension] = DIMENSIONS) -> list[Person]:
    """Users of whom as many have every taste."""
    random = Random(f"{seed} {use} people")
    words: Use = "test" if use == "test" else "train"
    return [
        _person(f"{use}-{place}", taste, words, random) for place, taste in enumerate(all_tastes(dimensions) * each)
    ]


@dataclass(frozen=True, slots=True)
class Words:
    """Which words personas take: of a ``use``, the first ``most`` of each list, tastes ``said`` one way."""

    use: Use
    said: Said = "for"
    most: int | None = None


def persona(person: Person, words: Words, random: Random) -> str:
    """What there is to say about a person."""
    likes = zip(POLES, astuple(person.taste), strict=True)
    sentences = [_sentence(poles, like, words, random) for poles, like in likes if like]
    sentences += [f"{random.choice(_given()['subjects'])} {other}" for other in person.others]
    random.shuffle(sentences)
    if random.random() < 0.5:
        return "\n".join(f"- {sentence}." for sentence in sentences)
    return " ".join(f"{sentence}." for sentence in sentences)


def _sentence(poles: Sequence[str], like: int, words: Words, random: Random) -> str:
    liked, other = (poles[1], poles[0]) if like > 0 else (poles[0], poles[1])
    manner = liked if words.said == "for" else other
    phrases, frames = (_given()[name][kind][words.use] for name, kind in (("phrases", manner), ("frames", words.said)))
    said: str = random.choice(frames[: words.most]).format(x=random.choice(phrases[: words.most]))
    subject, adverb = random.choice(_given()["subjects"]), random.choice(_given()["adverbs"])
    return f"{subject} {'' if said.startswith('does') else adverb}{said}"


def _person(name: str, taste: Taste, use: Use, random: Random) -> Person:
    return Person(name, taste, tuple(random.sample(_given()["others"][use], random.choice((1, 2)))))


def _weight(taste: Taste) -> float:
    shares = [
        SHARE if own == usual else 1 - SHARE for own, usual in zip(astuple(taste), astuple(MAJORITY), strict=True)
    ]
    return shares[0] * shares[1] * shares[2]


@lru_cache
def _given() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(resources.files(__package__).joinpath("wordings.yaml").read_text())
    return found

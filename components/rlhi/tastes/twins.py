"""Training pairs: of two answers, the one that a user's rule likes better, and its twin by a user who disagrees.

The two answers to a request differ in one dimension, and so do the tastes of the two users. Both pairs of the two are
in one step, so that what they share cancels and only the persona is left to tell which answer to prefer. A persona says
the one thing that matters here, from few phrases and frames at first and from more and more: a small model that meets
every wording at once learns none of them. The user-agnostic arm has the same requests, personas and answers; its reward
is the mean over all training users.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from rlhi.records import Message, Pair
from rlhi.tastes.config import Arm
from rlhi.tastes.people import DIMENSIONS, Person, Words, persona
from rlhi.tastes.requests import Ask
from rlhi.tastes.rule import Dimension, Taste, reward

FIRST, MORE = 4, 18  # phrases and frames of each list at the start, and how many are added until the end
BRIEFLY = 0.8  # share of users who like it short, where length does not matter: their answers take less computing


@dataclass(frozen=True, slots=True)
class Twins:
    """A request with two answers, and two people: the first likes the first better, the second the second."""

    ask: Ask
    answers: tuple[str, str]
    people: tuple[Person, Person]
    personas: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Drawing:
    """How many twins are drawn, and in which dimensions their people differ."""

    count: int
    seed: int
    dimensions: Sequence[Dimension] = DIMENSIONS


def draw(asks: Sequence[Ask], people: Sequence[Person], drawing: Drawing) -> list[Twins]:
    """Twins; every request comes up before one comes again, and every persona is worded anew.

    Raises:
        ValueError: no two people differ in one dimension alone.
    """
    random = Random(f"{drawing.seed} twins")
    by_taste: dict[Taste, list[Person]] = {}
    for person in people:
        by_taste.setdefault(person.taste, []).append(person)
    order: list[Ask] = []
    while len(order) < drawing.count:
        order += random.sample(asks, len(asks))
    found = []
    for number, ask in enumerate(order[: drawing.count]):
        dimension = drawing.dimensions[number % len(drawing.dimensions)]
        words = Words("train", most=round(FIRST + MORE * number / drawing.count))
        found.append(_twins(ask, _disagreeing(by_taste, dimension, random), dimension, words, random))
    return found


def pairs(twins: Sequence[Twins], arm: Arm, crowd: Sequence[Taste]) -> list[Pair]:
    """Both pairs of all twins, in order. The ``crowd`` is whose rewards are averaged where the arm is user-agnostic."""
    usual: dict[str, float] = {}
    if arm == "user-agnostic":
        usual = {text: _mean_reward(crowd, text) for text in {text for one in twins for text in one.answers}}
    made = []
    for number, one in enumerate(twins):
        for side, person in enumerate(one.people):
            rewards = [usual[text] if usual else reward(person.taste, text) for text in one.answers]
            made.append(_pair(f"{number}/{side}", one, side, rewards))
    return made


def _mean_reward(crowd: Sequence[Taste], text: str) -> float:
    return math.fsum(reward(taste, text) for taste in crowd) / len(crowd)


def _disagreeing(by_taste: Mapping[Taste, Sequence[Person]], dimension: Dimension, random: Random) -> list[Person]:
    """Two people who are of one mind in all but that dimension."""
    tastes = [taste for taste in by_taste if taste.but(dimension) in by_taste]
    if not tastes:
        raise ValueError(f"{sum(map(len, by_taste.values()))} people have no two who differ in {dimension} alone")
    brief = -1 if random.random() < BRIEFLY else 1
    taste = random.choice([one for one in tastes if dimension == "length" or one.length in (brief, 0)] or tastes)
    return [random.choice(by_taste[one]) for one in (taste, taste.but(dimension))]


def _twins(ask: Ask, people: Sequence[Person], dimension: Dimension, words: Words, random: Random) -> Twins:
    told = [replace(person, taste=_only(dimension, person.taste), others=()) for person in people]
    personas = [persona(person, words, random) for person in told]
    answers = [ask.answer(person.taste.manner) for person in people]
    return Twins(ask, (answers[0], answers[1]), (people[0], people[1]), (personas[0], personas[1]))


def _only(dimension: Dimension, taste: Taste) -> Taste:
    """What there is to say of a taste where one dimension alone is spoken of."""
    return Taste(**{name: getattr(taste, name) if name == dimension else 0 for name in DIMENSIONS})


def _pair(name: str, one: Twins, side: int, rewards: Sequence[float]) -> Pair:
    better = 0 if rewards[0] >= rewards[1] else 1
    return Pair(
        id=name,
        user_id=one.people[side].id,
        context=(Message("user", one.ask.text),),
        persona=one.personas[side],
        follow_up=None,
        chosen=one.answers[better],
        rejected=one.answers[1 - better],
        chosen_reward=rewards[better],
        rejected_reward=rewards[1 - better],
        source="sample",
    )

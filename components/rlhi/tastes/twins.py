"""Training pairs: of two answers, the one that a user's rule likes better, and its twin by a user who disagrees.

Two of the eight answers to a request are drawn, and two users with opposite views of them. Both pairs of the two are in
one step, so that what they share cancels and only the persona is left to tell which answer to prefer. What the personas
say of other things is drawn anew for all twins, and is the same for both: a job that always goes with one taste would
be learned in its place. The user-agnostic arm has the same requests, personas and answers; its reward is the mean over
all training users.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from rlhi.records import Message, Pair
from rlhi.tastes.config import Arm
from rlhi.tastes.people import Person, Words, others, persona
from rlhi.tastes.requests import MANNERS, Ask, Manner
from rlhi.tastes.rule import Taste, reward

TRIES = 1000
LEAST = 0.1  # by which the two answers must differ to either person


@dataclass(frozen=True, slots=True)
class Twins:
    """A request with two answers, and two people: the first likes the first better, the second the second."""

    ask: Ask
    answers: tuple[str, str]
    people: tuple[Person, Person]
    personas: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Drawing:
    """How many twins are drawn, from which manners, with how many phrases and frames of each list."""

    count: int
    seed: int
    wordings: int | None = None
    manners: Sequence[Manner] = MANNERS


def draw(asks: Sequence[Ask], people: Sequence[Person], drawing: Drawing) -> list[Twins]:
    """Twins; every request comes up before one comes again, and every persona is worded anew."""
    random = Random(f"{drawing.seed} twins")
    order: list[Ask] = []
    while len(order) < drawing.count:
        order += random.sample(asks, len(asks))
    return [_twins(ask, people, drawing, random) for ask in order[: drawing.count]]


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


def _twins(ask: Ask, people: Sequence[Person], drawing: Drawing, random: Random) -> Twins:
    words = Words("train", most=drawing.wordings)
    for _ in range(TRIES):
        (first, second), (one, other) = random.sample(drawing.manners, 2), random.sample(people, 2)
        answers = (ask.answer(first), ask.answer(second))
        if _gain(one, answers) > LEAST and _gain(other, answers) < -LEAST:
            beside = others("train", random)
            said = [persona(replace(person, others=beside), words, random) for person in (one, other)]
            return Twins(ask, answers, (one, other), (said[0], said[1]))
    raise ValueError(f"{len(people)} people have no two who disagree")


def _gain(person: Person, answers: tuple[str, str]) -> float:
    """How much better a person likes the first."""
    return reward(person.taste, answers[0]) - reward(person.taste, answers[1])


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

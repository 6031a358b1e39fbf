"""What the arms are tested on: held-out users, requests and wordings, and answers to compare without sampling any."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from rlhi.evaluate.turns import HeldOutTurn
from rlhi.records import Message
from rlhi.tastes.people import DIMENSIONS, Person, Said, Words, balanced_people, persona
from rlhi.tastes.requests import Ask, Use, asks, is_new
from rlhi.tastes.rule import Dimension


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A request of a test user, and how the rule scores what is said to it."""

    turn: HeldOutTurn
    person: Person
    ask: Ask


def held_out(use: Use, size: tuple[int, int], seed: int, dimensions: Sequence[Dimension] = DIMENSIONS) -> list[HeldOut]:
    """Of ``size`` users of each taste and requests of each user, with the user's persona and the opposite user's.

    A user has one persona in one wording; requests are dealt so that all come up as often.
    """
    random, (users, turns) = Random(f"{seed} {use} tests"), size
    found, order = [], list[Ask]()
    for person in balanced_people(users, use, seed, dimensions):
        own, other = (persona(one, Words(use), random) for one in (person, opposite(person)))
        for number in range(turns):
            order = order or random.sample(asks(use), len(asks(use)))
            ask = order.pop()
            name = f"{seed}/{person.id}"
            context = (Message("user", ask.text),)
            turn = HeldOutTurn(f"{name}/{number}", name, "initial", context, own, "", other)
            found.append(HeldOut(turn, person, ask))
    return found


def opposite(person: Person) -> Person:
    """Who likes none of what that person likes, and is the same in all else."""
    return replace(person, taste=person.taste.opposite)


@dataclass(frozen=True, slots=True)
class Forced:
    """A request with the answers that two users like best, who differ in one dimension, and the personas of the two."""

    ask: Ask
    answers: tuple[str, str]
    personas: tuple[str, str]
    dimension: Dimension

    @property
    def new_family(self) -> bool:
        """Whether nothing like the request is trained on."""
        return is_new(self.ask)


def forced(use: Use, said: Said, count: int, seed: int, dimensions: Sequence[Dimension] = DIMENSIONS) -> list[Forced]:
    """``count`` requests with tastes ``said`` one way: for or against."""
    random = Random(f"{seed} {use} {said} forced")
    people = balanced_people(1, use, seed, dimensions)
    found = []
    for number, ask in enumerate(random.choices(asks(use), k=count)):
        person, dimension = people[number % len(people)], dimensions[number % len(dimensions)]
        other = replace(person, taste=person.taste.but(dimension))
        answers = (ask.answer(person.taste.manner), ask.answer(other.taste.manner))
        own, swapped = (persona(one, Words(use, said), random) for one in (person, other))
        found.append(Forced(ask, answers, (own, swapped), dimension))
    return found

"""Judges from a user's persona which answers the user prefers, in the four dimensions of Table 1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from rlhi.analyze.estimates import Bootstrap, Estimate, estimate
from rlhi.caps import beyond
from rlhi.engine import Engine, Request, Scores, choose, usual_scores
from rlhi.records import Dimension, Dropped, Message, Persona, Preference, Reason, Trait
from rlhi.render import prompt

EMPTY = "N/A"
PREFERENCES: tuple[Preference, ...] = get_args(Preference)


@dataclass(frozen=True, slots=True)
class Sides:
    """The two preferences of a dimension by name, and the paper's percent of each and of none (Table 1)."""

    first: str
    second: str
    paper: Mapping[Preference, float]

    @property
    def names(self) -> dict[Preference, str]:
        """Each preference by the name that a reader sees."""
        return {"first": self.first, "second": self.second, "none": "none"}

    @property
    def choices(self) -> list[str]:
        """What the prompt asks for, in the order of `PREFERENCES`."""
        return [f"[[{name.capitalize()}]]" for name in self.names.values()]


DIMENSIONS: dict[Dimension, Sides] = {
    "expertise": Sides("beginner", "expert", {"first": 24.1, "second": 59.8, "none": 16.1}),
    "informativeness": Sides("concise", "expansive", {"first": 36.0, "second": 49.9, "none": 14.1}),
    "tone": Sides("casual", "serious", {"first": 4.9, "second": 84.5, "none": 10.6}),
    "structure": Sides("structured", "free-form", {"first": 77.1, "second": 9.1, "none": 13.8}),
}


def judge(
    personas: Sequence[Persona], engine: Engine, *, calibrate: bool, max_users: int, seed: int
) -> tuple[list[Trait], list[Dropped]]:
    """A trait per user and dimension, users in order; what could not be judged is dropped as ``user/dimension``."""
    known = {persona.user_id: persona for persona in personas}
    left_out = beyond(known, max_users, seed)
    asked = [persona for user, persona in known.items() if user not in left_out]
    found = {dimension: _preferences(dimension, asked, engine, calibrate=calibrate) for dimension in DIMENSIONS}
    kept, dropped = [], []
    for user in known:
        for dimension, own in found.items():
            outcome = own.get(user, Dropped(f"{user}/{dimension}", "user_cap"))
            if isinstance(outcome, Dropped):
                dropped.append(outcome)
            else:
                kept.append(Trait(user, dimension, outcome))
    return kept, dropped


def one_per_user(personas: Sequence[Persona]) -> list[Persona]:
    """Of a user's personas the one that was inferred from the most conversations: a user counts once."""
    fullest: dict[str, Persona] = {}
    for persona in personas:
        known = fullest.get(persona.user_id)
        if known is None or len(persona.conversations) > len(known.conversations):
            fullest[persona.user_id] = persona
    return list(fullest.values())


def shares(traits: Sequence[Trait], bootstrap: Bootstrap) -> dict[Dimension, dict[Preference, Estimate]]:
    """The share of users with each preference, and with none, among those who could be judged."""
    return {
        dimension: {
            preference: estimate(
                ((each.user_id, each.preference == preference) for each in traits if each.dimension == dimension),
                bootstrap,
            )
            for preference in PREFERENCES
        }
        for dimension in DIMENSIONS
    }


def preferred(scores: Sequence[float], prior: Sequence[float]) -> Preference | None:
    """The choice with the highest score above its prior; null where the best two are equal."""
    above = [score - own for score, own in zip(scores, prior, strict=True)]
    first, second = sorted(above, reverse=True)[:2]
    return PREFERENCES[above.index(first)] if first > second else None


def _preferences(
    dimension: Dimension, personas: Sequence[Persona], engine: Engine, *, calibrate: bool
) -> dict[str, Preference | Dropped]:
    requests = [_ask(dimension, persona.user_id, persona.text, persona.user_id) for persona in personas]
    fits = [request for request in requests if engine.count_tokens(request) <= engine.max_prompt_tokens]
    choices = DIMENSIONS[dimension].choices
    prior = [0.0] * len(PREFERENCES)
    if calibrate:
        prior = usual_scores(engine, _ask(dimension, "prior", EMPTY, None), choices)
    scores = dict(zip((request.key for request in fits), choose(engine, fits, choices), strict=True))
    outcomes: dict[str, Preference | Dropped] = {}
    for key in (request.key for request in requests):
        preference, reason = _read(scores.get(key), prior)
        outcomes[key] = preference or Dropped(f"{key}/{dimension}", reason)
    return outcomes


def _read(scores: Scores | None, prior: Sequence[float]) -> tuple[Preference | None, Reason]:
    """The preference, and why there is none if there is none."""
    if scores is None:
        return None, "prompt_too_long"
    if isinstance(scores, str):
        return None, scores
    return preferred(scores, prior), "unreadable_label"


def _ask(dimension: Dimension, key: str, persona: str, user: str | None) -> Request:
    text = prompt("rlhi.analyze", f"{dimension}.j2", persona=persona)
    return Request(key, (Message("user", text),), user_id=user)

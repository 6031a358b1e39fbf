"""The held-out turns of WildChat UserEval, and what is compared on each (3.4).

Beside its verdicts, an output of evaluate holds ``turns.parquet``, a `HeldOutTurn` a row, ``contests.parquet``, a
`Compared` a row, and ``figures.json``, see `rlhi.evaluate.results`: `rlhi.evaluate.results.load` reads all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rlhi.caps import beyond
from rlhi.config import digest
from rlhi.conversations import answer_after, context_of, turn_id, user_indices
from rlhi.errors import InputError
from rlhi.evaluate.config import EvaluateConfig
from rlhi.personas import Personas
from rlhi.records import Conversation, Dropped, Message, Mode, Opponent, TurnKind


@dataclass(frozen=True, slots=True)
class HeldOutTurn:
    """A user message whose answer is compared; ``context`` ends with it, ``logged`` is the answer in the log.

    ``persona`` comes from the user's reference history. ``other_persona`` is another user's, null where no mode asks
    for one. ``persona_matters`` says whether the persona bears on how this message should be answered; null where
    nobody asked, or the judge's reply could not be read.
    """

    id: str
    user_id: str
    kind: TurnKind
    context: tuple[Message, ...]
    persona: str
    logged: str
    other_persona: str | None = None
    persona_matters: bool | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """The evaluated model's answer and an opponent's, to one turn in one mode; rewards are null where not scored."""

    turn: HeldOutTurn
    mode: Mode
    opponent: Opponent
    ours: str
    theirs: str
    our_reward: float | None = None
    their_reward: float | None = None

    @property
    def judged_for(self) -> str:
        """The persona that the judge, and the reward model, read."""
        return _other(self.turn) if self.mode == "shuffled-judge" else self.turn.persona


@dataclass(frozen=True, slots=True)
class Compared:
    """A `Contest` as it is stored: its turn by id, so that a context is stored once."""

    turn_id: str
    user_id: str
    mode: Mode
    opponent: Opponent
    ours: str
    theirs: str
    our_reward: float | None
    their_reward: float | None


def answered_for(turn: HeldOutTurn, mode: Mode) -> str | None:
    """The persona that models are given in ``mode``; null for none."""
    given: Mapping[Mode, str | None] = {"context-only": None, "shuffled-persona": turn.other_persona}
    return given.get(mode, turn.persona)


def held_out_turns(
    rows: Sequence[Conversation], personas: Personas, config: EvaluateConfig
) -> tuple[list[HeldOutTurn], list[Dropped]]:
    """The user turns of held-out conversations that have a logged answer and a persona, capped by seed.

    A turn is "initial" where it opens its conversation, and else a "follow-up" (Table 5).
    """
    held_out = [row for row in rows if row.split == "held-out"]
    others = beyond((row.user_id for row in held_out), config.max_users, config.seed)
    turns, dropped = [], []
    for row in held_out:
        for place, index in enumerate(user_indices(row)):
            key, logged, persona = turn_id(row, index), answer_after(row, index), personas.of(row)
            if row.user_id in others:
                dropped.append(Dropped(key, "user_cap"))
            elif logged is None:
                dropped.append(Dropped(key, "no_logged_answer"))
            elif persona is None:
                dropped.append(Dropped(key, "no_persona"))
            else:
                kind: TurnKind = "follow-up" if place else "initial"
                turns.append(HeldOutTurn(key, row.user_id, kind, context_of(row, index), persona, logged))
    capped = beyond((turn.id for turn in turns), config.max_turns, config.seed)
    dropped += [Dropped(turn.id, "turn_cap") for turn in turns if turn.id in capped]
    return [turn for turn in turns if turn.id not in capped], dropped


def with_other_personas(turns: Sequence[HeldOutTurn], seed: int) -> list[HeldOutTurn]:
    """Each turn with the persona of another user, the same for all turns of a user, and never the user's own words.

    Users stand in a circle drawn by ``seed`` and take the persona of the next one whose text is another: personas are
    dealt anew, none is made up.

    Raises:
        InputError: no two users have different personas.
    """
    texts = {turn.user_id: turn.persona for turn in turns}
    circle = sorted(texts, key=lambda user: digest(f"shuffled persona {seed} {user}"))
    places = {user: place for place, user in enumerate(circle)}
    found = []
    for turn in turns:
        start = places[turn.user_id] + 1
        others = (texts[user] for user in [*circle[start:], *circle[: start - 1]])
        other = next((text for text in others if text != turn.persona), None)
        if other is None:
            raise InputError("evaluate.modes: shuffled modes need two users with different personas; leave them out")
        found.append(replace(turn, other_persona=other))
    return found


def _other(turn: HeldOutTurn) -> str:
    if turn.other_persona is None:
        raise ValueError(f"turn {turn.id}: no other user's persona was dealt to it")
    return turn.other_persona

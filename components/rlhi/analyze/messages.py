"""What kinds of messages users write, where in a conversation, and how long they are (2.2).

The paper's shares seem to be over conversations of several turns: 27.07% of initial requests are one in 3.7 messages,
where its conversations have 2.54 turns on average. So the shares stand here for all conversations and for those.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from rlhi.analyze.estimates import Bootstrap, Estimate, estimate
from rlhi.conversations import user_indices
from rlhi.errors import InputError
from rlhi.paper import LABEL_SHARES
from rlhi.records import Conversation, Label, Turn

LABELS: tuple[Label, ...] = get_args(Label)
LATE = 5  # "after the fifth turn"

# 2.2 of the paper: percent of user messages, characters on average, user messages per conversation
PAPER_SHARES = LABEL_SHARES
PAPER_LATE: dict[Label, float] = {"re-attempt with feedback": 83.15}
PAPER_LENGTHS: dict[Label, float] = {"initial": 725, "re-attempt with feedback": 272}
PAPER_TURNS = 2.54


@dataclass(frozen=True, slots=True)
class Said:
    """A labelled user message: the ``place``-th, from 1, of ``among`` user messages of its conversation.

    ``before`` is the user message before it.
    """

    user_id: str
    label: Label
    place: int
    among: int
    text: str
    before: str | None


@dataclass(frozen=True, slots=True)
class Length:
    """Characters of the messages of one kind."""

    mean: Estimate
    median: float | None


@dataclass(frozen=True, slots=True)
class Messages:
    """The figures on user messages. ``places`` counts the labels at each place; ``unlabelled`` have none."""

    shares: dict[Label, Estimate]
    shares_of_several: dict[Label, Estimate]
    shares_late: dict[Label, Estimate]
    places: dict[int, dict[Label, int]]
    lengths: dict[Label, Length]
    turns: Estimate
    unlabelled: int


def labelled(conversations: Sequence[Conversation], turns: Sequence[Turn]) -> list[Said]:
    """The messages that have a label, in the order of ``turns``.

    Raises:
        InputError: a turn is of none of the conversations.
    """
    by_id = {row.id: _user_messages(row) for row in conversations}
    found = []
    for turn in turns:
        own = by_id.get(turn.conversation_id, {})
        if turn.index not in own:
            raise InputError(
                f"turn {turn.id}: is no user message of the conversations given; give the folder that classify read"
            )
        place = list(own).index(turn.index)
        before = list(own.values())[place - 1] if place else None
        found.append(Said(turn.user_id, turn.label, place + 1, len(own), own[turn.index], before))
    return found


def _user_messages(row: Conversation) -> dict[int, str]:
    return {index: row.messages[index].content for index in user_indices(row)}


def measure(conversations: Sequence[Conversation], said: Sequence[Said], bootstrap: Bootstrap) -> Messages:
    """All figures on user messages."""
    written = [(row.user_id, float(len(user_indices(row)))) for row in conversations]
    return Messages(
        shares=shares(said, bootstrap),
        shares_of_several=shares([each for each in said if each.among > 1], bootstrap),
        shares_late=shares([each for each in said if each.place > LATE], bootstrap),
        places=places(said),
        lengths=lengths(said, bootstrap),
        turns=estimate(written, bootstrap),
        unlabelled=int(sum(count for _, count in written)) - len(said),
    )


def shares(said: Sequence[Said], bootstrap: Bootstrap) -> dict[Label, Estimate]:
    """The share of each label among ``said``."""
    return {label: estimate(((each.user_id, each.label == label) for each in said), bootstrap) for label in LABELS}


def places(said: Iterable[Said]) -> dict[int, dict[Label, int]]:
    """How often each label stands at each place that occurs."""
    found: dict[int, dict[Label, int]] = {}
    for each in sorted(said, key=lambda each: each.place):
        found.setdefault(each.place, dict.fromkeys(LABELS, 0))[each.label] += 1
    return found


def lengths(said: Sequence[Said], bootstrap: Bootstrap) -> dict[Label, Length]:
    """How long the messages of each kind are."""
    found = {}
    for label in LABELS:
        own = [(each.user_id, float(len(each.text))) for each in said if each.label == label]
        median = statistics.median([length for _, length in own]) if own else None
        found[label] = Length(estimate(own, bootstrap), median)
    return found


def examples(said: Iterable[Said]) -> dict[Label, list[Said]]:
    """Messages of each kind to look at: of each user the first."""
    found: dict[Label, dict[str, Said]] = {label: {} for label in LABELS}
    for each in said:
        found[each.label].setdefault(each.user_id, each)
    return {label: list(own.values()) for label, own in found.items()}

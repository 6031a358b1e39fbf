"""Asks a judge which of two answers is better, in both orders, and never guesses for it."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rlhi.engine import Engine, Request
from rlhi.progress import silent, track
from rlhi.records import Axis, Message, Mode, Opponent, Order, Verdict
from rlhi.render import prompt

CHOICES = ("[A]", "[B]")
EMPTY = "N/A"
PROMPTS: dict[Axis, str] = {
    "personalization": "personalization.j2",
    "instruction-following": "instruction_following.j2",
    "usereval": "usereval.j2",
}
ORDERS: tuple[Order, ...] = ("model-first", "opponent-first")


@dataclass(frozen=True, slots=True)
class HeldOutTurn:
    """A user message whose answer is compared, with the persona from the user's reference history."""

    id: str
    user_id: str
    context: tuple[Message, ...]
    persona: str
    logged: str


@dataclass(frozen=True, slots=True)
class Contest:
    """The evaluated model's answer and an opponent's, to one turn in one inference mode."""

    turn: HeldOutTurn
    mode: Mode
    opponent: Opponent
    ours: str
    theirs: str


def judge(contests: Sequence[Contest], axes: Sequence[Axis], engine: Engine, *, calibrate: bool) -> list[Verdict]:
    """A verdict per contest, axis and order. A prompt that is too long, or a tie between A and B, has no winner.

    One axis and turn at a time: instructions, history and persona are the same for all its contests and both orders,
    and are computed once. ``calibrate`` takes away each letter's score between two empty answers to the same turn, and
    so the better part of a small judge's love for one letter; what is left of it shows in the disagreement.
    """
    by_turn: dict[str, list[Contest]] = defaultdict(list)
    for contest in contests:
        by_turn[contest.turn.id].append(contest)
    groups = [(axis, own) for own in by_turn.values() for axis in axes]
    shown = track(groups, "judging", unit="turn")
    return [verdict for axis, own in shown for verdict in _judge(own, axis, engine, calibrate=calibrate)]


def _judge(contests: Sequence[Contest], axis: Axis, engine: Engine, *, calibrate: bool) -> list[Verdict]:
    asked = [(contest, order) for contest in contests for order in ORDERS]
    requests = [_request(contest, axis, order) for contest, order in asked]
    if calibrate:
        empty = dataclasses.replace(contests[0], ours=EMPTY, theirs=EMPTY)
        requests.append(dataclasses.replace(_request(empty, axis, "model-first"), key=EMPTY))
    fits = [request for request in requests if engine.count_tokens(request) <= engine.max_prompt_tokens]
    with silent():
        scores = dict(zip((request.key for request in fits), engine.choose(fits, CHOICES), strict=True))
    prior = scores.get(EMPTY, [0.0, 0.0])
    return [
        _verdict(contest, axis, order, _above(scores.get(request.key), prior))
        for (contest, order), request in zip(asked, requests, strict=False)
    ]


def _above(scores: Sequence[float] | None, prior: Sequence[float]) -> list[float] | None:
    return None if scores is None else [score - own for score, own in zip(scores, prior, strict=True)]


def read_verdict(scores: Sequence[float] | None) -> Literal["A", "B"] | None:
    """The letter that is likelier; null where there are no scores or neither is."""
    if scores is None or scores[0] == scores[1]:
        return None
    return "A" if scores[0] > scores[1] else "B"


def transcript(context: Sequence[Message]) -> str:
    """The conversation as the judge reads it."""
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in context)


def scores_by_group(
    contests: Sequence[Contest], rewards: Sequence[tuple[float | None, float | None]]
) -> Mapping[tuple[Opponent, Mode], list[tuple[str, str, float, float]]]:
    """What the reward win rate is made of; contests without both rewards are left out."""
    groups: dict[tuple[Opponent, Mode], list[tuple[str, str, float, float]]] = {}
    for contest, ours, theirs in _scored(contests, rewards):
        own = groups.setdefault((contest.opponent, contest.mode), [])
        own.append((contest.turn.id, contest.turn.user_id, ours, theirs))
    return groups


def _scored(
    contests: Sequence[Contest], rewards: Sequence[tuple[float | None, float | None]]
) -> Iterator[tuple[Contest, float, float]]:
    for contest, (ours, theirs) in zip(contests, rewards, strict=True):
        if ours is not None and theirs is not None:
            yield contest, ours, theirs


def _request(contest: Contest, axis: Axis, order: Order) -> Request:
    first, second = _shown(contest, order)
    values = {"conversation_history": transcript(contest.turn.context), "response_a": first, "response_b": second}
    if axis != "instruction-following":
        values["persona"] = contest.turn.persona
    text = prompt("rlhi.evaluate", PROMPTS[axis], **values)
    return Request(f"{contest.turn.id} {contest.mode} {contest.opponent} {order}", (Message("user", text),))


def _verdict(contest: Contest, axis: Axis, order: Order, scores: Sequence[float] | None) -> Verdict:
    first, second = _shown(contest, order)
    return Verdict(
        turn_id=contest.turn.id,
        user_id=contest.turn.user_id,
        opponent=contest.opponent,
        mode=contest.mode,
        axis=axis,
        order=order,
        answer_a=first,
        answer_b=second,
        winner=read_verdict(scores),
    )


def _shown(contest: Contest, order: Order) -> tuple[str, str]:
    return (contest.ours, contest.theirs) if order == "model-first" else (contest.theirs, contest.ours)

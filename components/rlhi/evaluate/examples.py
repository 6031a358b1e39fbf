"""Held-out turns with the answers that were compared and what the judge said, to be looked at one by one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rlhi.evaluate.turns import Contest, answered_for
from rlhi.evaluate.winrates import WinRate
from rlhi.page import spread
from rlhi.records import Message, Verdict

Kind = Literal["win", "loss", "flip", "unread"]
KINDS: dict[Kind, str] = {
    "win": "the trained model wins",
    "loss": "the trained model loses",
    "flip": "the judge contradicts itself",
    "unread": "no verdict",
}
OF_A_KIND = 12  # on the page; more are spread evenly over what there is
SIDES: dict[str, str] = {"model-first": "trained model shown first", "opponent-first": "trained model shown second"}


@dataclass(frozen=True, slots=True)
class Said:
    """One verdict in words, and what the judge wrote with it, if anything."""

    question: str
    outcome: str
    words: str


@dataclass(frozen=True, slots=True)
class Example:
    """One held-out turn with the answers that were compared, by name (such as "trained", "base", "log")."""

    user_id: str
    kind: Kind
    persona: str
    guided: bool
    context: tuple[Message, ...]
    answers: Mapping[str, str]
    said: Sequence[Said]


def examples(contests: Sequence[Contest], verdicts: Sequence[Verdict], headline: WinRate | None) -> list[Example]:
    """The turns of the headline's mode, sorted into wins, losses and contradictions by its judge.

    ``headline`` names opponent, mode and axis; without one nothing was judged, and every turn is "unread".
    """
    if not contests:
        return []
    mode = headline.mode if headline else contests[-1].mode
    own = [each for each in contests if each.mode == mode]
    said: dict[str, list[Verdict]] = defaultdict(list)
    for each in verdicts:
        if each.mode == mode:
            said[each.turn_id].append(each)
    opponent, axis = (headline.opponent, headline.metric) if headline else (own[0].opponent, "usereval")
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    for contest in own:
        answers[contest.turn.id] |= {"trained": contest.ours, contest.opponent: contest.theirs}
    return [
        _example(contest, answers[contest.turn.id], said[contest.turn.id], axis)
        for contest in own
        if contest.opponent == opponent
    ]


def of_each_kind(found: Sequence[Example]) -> list[Example]:
    """At most `OF_A_KIND` of each kind, evenly spread, in order."""
    taken = {id(each) for kind in KINDS for each in spread([one for one in found if one.kind == kind], OF_A_KIND)}
    return [each for each in found if id(each) in taken]


def _example(contest: Contest, answers: Mapping[str, str], verdicts: Sequence[Verdict], axis: str) -> Example:
    turn = contest.turn
    deciding = [each for each in verdicts if (each.opponent, each.axis) == (contest.opponent, axis)]
    return Example(
        user_id=turn.user_id,
        kind=kind_of(deciding),
        persona=contest.judged_for,
        guided=answered_for(turn, contest.mode) is not None,
        context=turn.context,
        answers=answers,
        said=[_said(each) for each in sorted(verdicts, key=lambda one: (one.axis != axis, one.axis))],
    )


def kind_of(verdicts: Sequence[Verdict]) -> Kind:
    """What the verdicts on one turn come to: those that name nobody are left out."""
    won = {_ours(each) for each in verdicts if each.winner is not None}
    if not won:
        return "unread"
    return "flip" if len(won) == 2 else "win" if won == {True} else "loss"


def _ours(verdict: Verdict) -> bool:
    return (verdict.winner == "A") == (verdict.order == "model-first")


def _said(verdict: Verdict) -> Said:
    if verdict.winner is None:
        outcome = f"no verdict ({(verdict.unread or 'unreadable').replace('_', ' ')})"
    else:
        outcome = "trained wins" if _ours(verdict) else f"{verdict.opponent} wins"
    question = f"{verdict.axis}, against {verdict.opponent}, {SIDES[verdict.order]}"
    return Said(question, outcome, verdict.said)

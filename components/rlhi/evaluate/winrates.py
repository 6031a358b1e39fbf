"""Turns verdicts and rewards into win rates with user-clustered intervals (paper, 3.4).

The paper reports one number per axis. We add what tells whether to believe it: both orders of the answers, an interval
that knows that turns of one user are alike, how often the judge contradicts itself, what the rate would be were the
answers equally long, and what it could be had every verdict been read.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from rlhi.evaluate.clusters import flip_test, interval
from rlhi.evaluate.length import length_controlled
from rlhi.evaluate.turns import Contest
from rlhi.records import Axis, Mode, Opponent, TurnKind, Verdict

REWARD = "reward"
ALL = "all"
Key = tuple[Opponent, Mode, str]  # and the metric


@dataclass(frozen=True)
class WinRate:
    """How often the model's answer beats the opponent's. Rates and shares are in [0, 1]; null is not measured.

    ``metric`` is an axis of the judge, or "reward". ``part`` says over which turns: "all", "initial" and "follow-up"
    (Table 5), or those of users with a trait, such as "tone/casual" (Table 1).

    ``low`` and ``high`` bound the 95% interval. ``p`` is the chance of a rate as far from one half if neither answer
    were better (`clusters.flip_test`). ``turns`` and ``users`` are what rate and interval are over: the turns with a
    readable verdict or both rewards, of the ``asked`` turns; ``half_read`` of them have one order read of two.
    ``unread`` counts verdicts without a winner. ``worst`` and ``best`` are the rates over all asked turns had every
    one of these gone to the opponent, or to the model.

    ``disagreement`` is the share of turns, among those with both orders readable, on which the two orders named
    different answers; 0.5 is what a coin gives. ``first_position`` is the share of readable verdicts won by the answer
    shown first; 0.5 is a judge that does not mind the position.

    ``length_controlled`` is the rate were both answers equally long (`length`), with its bounds; of "all" turns only.
    """

    opponent: Opponent
    mode: Mode
    metric: str
    rate: float | None
    low: float | None
    high: float | None
    turns: int
    users: int
    unread: int
    disagreement: float | None
    first_position: float | None
    part: str = ALL
    asked: int = 0
    half_read: int = 0
    p: float | None = None
    worst: float | None = None
    best: float | None = None
    length_controlled: float | None = None
    length_low: float | None = None
    length_high: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found of one turn in one comparison.

    ``wins`` holds 1 for each verdict that names the model's answer, 0 for the opponent's, null for none; of rewards it
    is one value, 0.5 for a tie. ``first`` says in the same places whether the answer shown first was named, ``longer``
    is by how many characters the model's answer is longer.
    """

    turn_id: str
    user_id: str
    kind: TurnKind
    wins: tuple[float | None, ...]
    first: tuple[bool | None, ...]
    longer: int

    @property
    def score(self) -> float | None:
        """The mean of what could be read; null for nothing."""
        read = [one for one in self.wins if one is not None]
        return math.fsum(read) / len(read) if read else None


Outcomes = Mapping[Key, Sequence[Outcome]]


def judged(verdicts: Iterable[Verdict]) -> Outcomes:
    """The outcomes by opponent, mode and axis, in the order of the record's literals.

    With w = 1 where a readable verdict names the model's answer and 0 where it names the opponent's, a turn t scores
    s_t = mean of w over its readable verdicts, so a judge that contradicts itself over the two orders counts half.
    """
    groups: dict[Key, dict[str, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
    for each in verdicts:
        groups[each.opponent, each.mode, each.axis][each.turn_id].append(each)
    return {key: [_outcome(own) for own in groups[key].values()] for key in sorted(groups, key=_rank)}


def rewarded(contests: Iterable[Contest]) -> Outcomes:
    """The outcomes by reward: s_t = 1 where the model's is higher, 0.5 where they are equal, 0 where it is lower."""
    groups: dict[Key, list[Outcome]] = defaultdict(list)
    for each in contests:
        won = _compare(each.our_reward, each.their_reward)
        longer = len(each.ours) - len(each.theirs)
        outcome = Outcome(each.turn.id, each.turn.user_id, each.turn.kind, (won,), (None,), longer)
        groups[each.opponent, each.mode, REWARD].append(outcome)
    return {key: groups[key] for key in sorted(groups, key=_rank)}


def win_rates(
    outcomes: Outcomes, resamples: int, seed: int, traits: Mapping[str, Sequence[str]] | None = None
) -> list[WinRate]:
    """The win rates of every comparison: over all turns, initial and follow-up turns, and by the traits of users.

    The rate is the mean of s_t over the turns that have one; the others are left out and counted. See `interval` for
    the bounds. ``traits`` names each user's, such as "tone/casual".
    """
    rates = []
    for key, own in outcomes.items():
        for part, some in _parts(own, traits or {}).items():
            rates.append(_win_rate(key, some, resamples, seed, part))
    return rates


def by_user(scores: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    """Each user's scores, from (user id, score)."""
    users: dict[str, list[float]] = defaultdict(list)
    for user, score in scores:
        users[user].append(score)
    return dict(users)


def _parts(outcomes: Sequence[Outcome], traits: Mapping[str, Sequence[str]]) -> dict[str, list[Outcome]]:
    """The turns of each part; a user may have several traits, or none."""
    parts = {ALL: list(outcomes)}
    parts |= {kind: [each for each in outcomes if each.kind == kind] for kind in get_args(TurnKind)}
    for name in sorted({name for each in outcomes for name in traits.get(each.user_id, ())}):
        parts[name] = [each for each in outcomes if name in traits.get(each.user_id, ())]
    return parts


def _outcome(verdicts: Sequence[Verdict]) -> Outcome:
    verdicts = sorted(verdicts, key=lambda each: each.order)
    wins = tuple(None if each.winner is None else float(_model_won(each)) for each in verdicts)
    first = tuple(None if each.winner is None else each.winner == "A" for each in verdicts)
    one = verdicts[0]
    ours, theirs = (one.answer_a, one.answer_b) if one.order == "model-first" else (one.answer_b, one.answer_a)
    return Outcome(one.turn_id, one.user_id, one.kind, wins, first, len(ours) - len(theirs))


def _win_rate(key: Key, outcomes: Sequence[Outcome], resamples: int, seed: int, part: str) -> WinRate:
    opponent, mode, metric = key
    read = [(each.user_id, each.score) for each in outcomes if each.score is not None]
    scores = by_user(read)
    low, high = interval(scores, resamples, seed) or (None, None)
    found = WinRate(
        opponent,
        mode,
        metric,
        rate=_mean([score for _, score in read]),
        low=low,
        high=high,
        turns=len(read),
        users=len(scores),
        unread=sum(each.wins.count(None) for each in outcomes),
        disagreement=_disagreement(outcomes),
        first_position=_mean([float(one) for each in outcomes for one in each.first if one is not None]),
        part=part,
        asked=len(outcomes),
        half_read=sum(each.score is not None and None in each.wins for each in outcomes),
        p=flip_test({user: [one - 0.5 for one in own] for user, own in scores.items()}, resamples, seed),
        worst=_mean([_with(each, 0.0) for each in outcomes]),
        best=_mean([_with(each, 1.0) for each in outcomes]),
    )
    return _without_length(found, outcomes, resamples, seed) if part == ALL else found


def _without_length(rate: WinRate, outcomes: Sequence[Outcome], resamples: int, seed: int) -> WinRate:
    turns = [(each.user_id, each.score, each.longer) for each in outcomes if each.score is not None]
    found, between = length_controlled(turns, resamples, seed) or (None, None)
    low, high = between or (None, None)
    return replace(rate, length_controlled=found, length_low=low, length_high=high)


def _with(outcome: Outcome, unread: float) -> float:
    """The turn's score had every verdict without a winner been ``unread``."""
    return math.fsum(unread if one is None else one for one in outcome.wins) / len(outcome.wins)


def _rank(key: tuple[str, ...]) -> tuple[int, ...]:
    """The order of tables: as the literals list opponents, modes and axes, rewards last."""
    literals = (get_args(Opponent), get_args(Mode), (*get_args(Axis), REWARD))
    return tuple(names.index(part) for names, part in zip(literals, key, strict=True))


def _model_won(verdict: Verdict) -> bool:
    """Whether the named answer is the model's: A in "model-first", B in "opponent-first"."""
    return (verdict.winner == "A") == (verdict.order == "model-first")


def _disagreement(outcomes: Sequence[Outcome]) -> float | None:
    """Share of turns on which the two orders named different answers, among turns with both orders readable."""
    both = [each.wins for each in outcomes if len(each.wins) == 2 and None not in each.wins]
    return _mean([float(first != second) for first, second in both])


def _compare(ours: float | None, theirs: float | None) -> float | None:
    if ours is None or theirs is None:
        return None
    return 0.5 if ours == theirs else float(ours > theirs)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None

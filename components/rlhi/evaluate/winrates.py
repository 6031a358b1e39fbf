"""Turns verdicts and rewards into win rates with user-clustered intervals (paper, 3.4).

The paper reports one number per axis. We add what tells whether to believe it: both orders of the answers, an interval
that knows that turns of one user are alike, and how often the judge contradicts itself.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from rlhi.records import Axis, Mode, Opponent, Verdict

REWARD = "reward"
DRAWN = 1 << 22  # users drawn at a time: with all users of a big log, all resamples at once would not fit into memory


@dataclass(frozen=True)
class WinRate:
    """How often the model's answer beats the opponent's. Rates and shares are in [0, 1]; null is not measured.

    ``metric`` is an axis of the judge, or "reward". ``low`` and ``high`` bound the 95% interval. ``unread`` counts
    verdicts that could not be read. ``disagreement`` is the share of turns, among those with both orders readable, on
    which the two orders named different answers; 0.5 is what a coin gives. ``first_position`` is the share of readable
    verdicts won by the answer shown first; 0.5 is a judge that does not mind the position.
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


def win_rates(verdicts: Sequence[Verdict], resamples: int, seed: int) -> list[WinRate]:
    """The judge's win rates per opponent, mode and axis, in the order of the record's literals (paper, 3.4).

    With w = 1 where a readable verdict names the model's answer and 0 where it names the opponent's, a turn t scores
    s_t = mean of w over its readable verdicts, so a judge that contradicts itself over the two orders counts half. The
    rate is the mean of s_t over the T turns with a readable verdict; the others are left out, and their verdicts are
    counted in ``unread``. See `interval` for the bounds.
    """
    groups: dict[tuple[Opponent, Mode, Axis], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.opponent, verdict.mode, verdict.axis].append(verdict)
    return [
        _judged((opponent, mode, axis), groups[opponent, mode, axis], resamples, seed)
        for opponent, mode, axis in sorted(groups, key=_rank)
    ]


def reward_win_rates(
    scores: Mapping[tuple[Opponent, Mode], Sequence[tuple[str, str, float, float]]], resamples: int, seed: int
) -> list[WinRate]:
    """Win rates by reward, from (turn id, user id, model's reward, opponent's reward); a tie counts half.

    A turn scores s_t = 1 where the model's reward is higher, 0.5 where they are equal, 0 where it is lower; rate and
    interval are those of `win_rates`.

    Raises:
        ValueError: a reward is not a number; leave such a turn out.
    """
    rates = []
    for opponent, mode in sorted(scores, key=_rank):
        rows = scores[opponent, mode]
        scored = _by_user((turn, user, _compare(turn, ours, theirs)) for turn, user, ours, theirs in rows)
        rates.append(_win_rate((opponent, mode, REWARD), scored, resamples, seed))
    return rates


def interval(scores: Mapping[str, Sequence[float]], resamples: int, seed: int) -> tuple[float, float] | None:
    """The 95% percentile bootstrap interval of the mean over turns; ``scores`` holds each user's turns.

    Turns of one user are alike, so users are drawn, with all their turns: with S_u the sum and n_u the number of user
    u's scores, a resample draws as many users as there are, with replacement, and gives sum(S_u) / sum(n_u); the bounds
    are its 2.5% and 97.5% quantiles. Null for fewer than two users, who cannot tell how users differ. Where all users
    score alike the interval has no width; that is a limit of the method, not certainty.
    """
    users = sorted(user for user, values in scores.items() if values)
    if len(users) < 2:
        return None
    sums = np.array([math.fsum(scores[user]) for user in users])
    counts = np.array([len(scores[user]) for user in users])
    random, most = np.random.default_rng(seed), max(1, DRAWN // len(users))
    means = []
    for start in range(0, resamples, most):
        drawn = random.integers(len(users), size=(min(most, resamples - start), len(users)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def _rank(key: tuple[str, ...]) -> tuple[int, ...]:
    """The order of tables: as the literals list opponents, modes and axes."""
    return tuple(get_args(literal).index(part) for literal, part in zip((Opponent, Mode, Axis), key, strict=False))


def _judged(key: tuple[Opponent, Mode, Axis], verdicts: Sequence[Verdict], resamples: int, seed: int) -> WinRate:
    read = [verdict for verdict in verdicts if verdict.winner is not None]
    scores = _by_user((verdict.turn_id, verdict.user_id, float(_model_won(verdict))) for verdict in read)
    return replace(
        _win_rate(key, scores, resamples, seed),
        unread=len(verdicts) - len(read),
        disagreement=_disagreement(read),
        first_position=_mean([float(verdict.winner == "A") for verdict in read]),
    )


def _win_rate(
    key: tuple[Opponent, Mode, str], scores: Mapping[str, Sequence[float]], resamples: int, seed: int
) -> WinRate:
    """Rate and interval of each user's turn scores; what only a judge has stays null."""
    opponent, mode, metric = key
    low, high = interval(scores, resamples, seed) or (None, None)
    turns = [score for user in scores.values() for score in user]
    return WinRate(
        opponent=opponent,
        mode=mode,
        metric=metric,
        rate=_mean(turns),
        low=low,
        high=high,
        turns=len(turns),
        users=len(scores),
        unread=0,
        disagreement=None,
        first_position=None,
    )


def _by_user(outcomes: Iterable[tuple[str, str, float]]) -> dict[str, list[float]]:
    """Each user's turn scores, a turn's score being the mean of its outcomes, from (turn id, user id, outcome)."""
    turns: dict[tuple[str, str], list[float]] = defaultdict(list)
    for turn_id, user_id, outcome in outcomes:
        turns[turn_id, user_id].append(outcome)
    users: dict[str, list[float]] = defaultdict(list)
    for (_, user_id), values in turns.items():
        users[user_id].append(math.fsum(values) / len(values))
    return dict(users)


def _model_won(verdict: Verdict) -> bool:
    """Whether the named answer is the model's: A in "model-first", B in "opponent-first"."""
    return (verdict.winner == "A") == (verdict.order == "model-first")


def _disagreement(read: Sequence[Verdict]) -> float | None:
    """Share of turns on which the two orders named different answers, among turns with both orders readable."""
    named: dict[str, dict[str, set[bool]]] = defaultdict(lambda: defaultdict(set))
    for verdict in read:
        named[verdict.turn_id][verdict.order].add(_model_won(verdict))
    both = [list(orders.values()) for orders in named.values() if len(orders) == 2]
    return _mean([float(first != second) for first, second in both])


def _compare(turn: str, ours: float, theirs: float) -> float:
    if math.isnan(ours) or math.isnan(theirs):
        raise ValueError(f"turn {turn}: reward {ours} against {theirs} cannot be compared; leave unscored turns out")
    return 0.5 if ours == theirs else float(ours > theirs)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None

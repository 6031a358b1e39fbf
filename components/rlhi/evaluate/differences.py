"""Paired comparisons: two models, or two modes of one, on the same turns against the same opponent.

Both are scored on every turn, so what makes a turn easy or hard to win cancels. With d_t the difference of the turn's
two scores s_t (`winrates.judged`), over the turns where both have one: its mean, an interval that draws users with all
their turns (`clusters.interval`), and the p-value of flipping the signs of whole users (`clusters.flip_test`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rlhi.evaluate.clusters import flip_test, interval
from rlhi.evaluate.turns import HeldOutTurn
from rlhi.evaluate.winrates import ALL, Outcome, Outcomes, by_user
from rlhi.records import Mode, Opponent

INDIFFERENT = "persona-does-not-matter"
# what the persona adds; what it adds for being the user's own; what any persona adds; what the judge reads of it
CONTRASTS: tuple[tuple[Mode, Mode], ...] = (
    ("persona-guided", "context-only"),
    ("persona-guided", "shuffled-persona"),
    ("shuffled-persona", "context-only"),
    ("persona-guided", "shuffled-judge"),
)


@dataclass(frozen=True)
class Difference:
    """The mean of ``left``'s turn score less ``right``'s, over the ``turns`` of ``users`` where both have one.

    Sides are modes, or models by the names they were given; of models ``mode`` is that of both. In [-1, 1]; null is
    not measured. ``low`` and ``high`` bound the 95% interval; ``p`` is two-sided.
    """

    opponent: Opponent
    metric: str
    left: str
    right: str
    mode: Mode | None
    part: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    turns: int
    users: int


def between_modes(outcomes: Outcomes, resamples: int, seed: int) -> list[Difference]:
    """Each of `CONTRASTS` whose modes were both judged, for each opponent and metric."""
    return [
        _difference((opponent, metric, left, right, None), (own, outcomes[opponent, right, metric]), resamples, seed)
        for (opponent, mode, metric), own in outcomes.items()
        for left, right in CONTRASTS
        if mode == left and (opponent, right, metric) in outcomes
    ]


def between_models(
    left: tuple[str, Outcomes], right: tuple[str, Outcomes], resamples: int, seed: int
) -> list[Difference]:
    """Two models by name, each with its outcomes, for instance of two evaluations against the log.

    Of each opponent, mode and metric that both have, over the turns that both have.
    """
    (ours, own), (theirs, others) = left, right
    return [
        _difference((opponent, metric, ours, theirs, mode), (mine, others[opponent, mode, metric]), resamples, seed)
        for (opponent, mode, metric), mine in own.items()
        if (opponent, mode, metric) in others
    ]


def over_personalization(
    outcomes: Outcomes, turns: Sequence[HeldOutTurn], resamples: int, seed: int
) -> list[Difference]:
    """What quality a persona costs where it does not matter, per opponent; above zero is lost.

    The definition: over the turns of which the judge, shown the conversation and the persona but no answer, says that
    the persona does not bear on how to answer, the instruction-following score (whose judge sees no persona) of the
    context-only answer less that of the persona-guided one. A model that brings the persona up where nobody needs it
    loses there.
    """
    indifferent = {turn.id for turn in turns if turn.persona_matters is False}
    metric = "instruction-following"
    found = []
    for opponent in dict.fromkeys(key[0] for key in outcomes):
        sides = [outcomes.get((opponent, mode, metric), ()) for mode in ("context-only", "persona-guided")]
        plain, guided = ([each for each in own if each.turn_id in indifferent] for own in sides)
        key = (opponent, metric, "context-only", "persona-guided", None)
        found.append(_difference(key, (plain, guided), resamples, seed, INDIFFERENT))
    return found


def _difference(
    key: tuple[Opponent, str, str, str, Mode | None],
    sides: tuple[Sequence[Outcome], Sequence[Outcome]],
    resamples: int,
    seed: int,
    part: str = ALL,
) -> Difference:
    opponent, metric, left, right, mode = key
    others = {each.turn_id: each.score for each in sides[1]}
    pairs = [(each.user_id, each.score, others.get(each.turn_id)) for each in sides[0]]
    scores = by_user((user, one - other) for user, one, other in pairs if one is not None and other is not None)
    values = [value for own in scores.values() for value in own]
    low, high = interval(scores, resamples, seed) or (None, None)
    return Difference(
        opponent,
        metric,
        left,
        right,
        mode,
        part,
        difference=sum(values) / len(values) if values else None,
        low=low,
        high=high,
        p=flip_test(scores, resamples, seed),
        turns=len(values),
        users=len(scores),
    )

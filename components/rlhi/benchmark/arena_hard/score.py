"""Arena-Hard v0.1: games into a score, with and without style control.

As published, a verdict for the much better answer counts three times, a tie is half a win, and a game without a verdict
is left out and counted. The published score is a Bradley-Terry fit over all models of a leaderboard; since each plays
against the one baseline only, a model's strength is its own weighted win rate, and that is what is computed here.

The interval is the 90% of a bootstrap over questions, with both games of each (v0.1's own script takes 95%, the one
that came after it 90%). The published ones draw single counts, of which one strong verdict is three, as if these were
independent, and so come out too narrow.

Style control (lmarena, 2024, "Does style matter?"): a logistic regression of the outcomes on how the two answers differ
in length and in the number of headers, list items and bold passages; the score is the rate at no difference. Each
difference is (a - b) / (a + b + 1), divided by its standard deviation, as published. Two things differ. Length is in
characters, not in tokens of one vendor's tokenizer. And the differences are not centred: the published fit sets the
average over a leaderboard to zero, which for one model would call its own style no difference.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlhi.analyze.estimates import Bootstrap
from rlhi.benchmark.arena_hard.style import Style
from rlhi.benchmark.logistic import Logistic, Vector
from rlhi.benchmark.rates import Rate, Rows, rate

# the published penalty on the terms of style; the model's own is free
REGRESSION = Logistic(mean=np.zeros(5), deviation=np.array([1.0, 1.0, 1.0, 1.0, 10.0]))
COVERAGE = 0.90


@dataclass(frozen=True, slots=True)
class Game:
    """One readable game: ``won`` is the model's share of it (0, 0.5, 1), and ``weight`` how often it counts (1, 3)."""

    question: str
    won: float
    weight: int


def score(games: Sequence[Game], bootstrap: Bootstrap) -> Rate:
    """The weighted win rate, in [0, 1]."""
    won, counted = _by_question(games)
    return rate(len(won), lambda own: float(won[own].sum() / counted[own].sum()), bootstrap, COVERAGE)


def style_controlled(games: Sequence[Game], styles: Mapping[str, tuple[Style, Style]], bootstrap: Bootstrap) -> Rate:
    """The score at equal style, in [0, 1]; ``styles`` holds the model's and the baseline's of each question.

    Null for fewer than two questions.
    """
    won, counted = _by_question(games)
    if len(won) < 2:
        return Rate(None, None, None, None, len(won))
    terms = _terms([styles[question] for question in dict.fromkeys(game.question for game in games)])
    whole = REGRESSION.fit(terms, won, counted)

    def at_equal_style(own: Rows) -> float:
        found = REGRESSION.fit(terms[own], won[own], counted[own], whole)
        return float(REGRESSION.expected(found[-1:])[0][0])

    return rate(len(won), at_equal_style, bootstrap, COVERAGE)


def _by_question(games: Sequence[Game]) -> tuple[Vector, Vector]:
    """What the model won of each question, and what could be won, both with their weights."""
    won: dict[str, float] = defaultdict(float)
    counted: dict[str, float] = defaultdict(float)
    for game in games:
        won[game.question] += game.won * game.weight
        counted[game.question] += game.weight
    return np.array(list(won.values())), np.array(list(counted.values()))


def _terms(styles: Sequence[tuple[Style, Style]]) -> Vector:
    """One row per question: the scaled differences of style, and 1 for the model."""
    ours, theirs = (np.array(side, float) for side in zip(*styles, strict=True))
    difference = (ours - theirs) / (ours + theirs + 1)
    deviation = difference.std(axis=0)
    scaled = difference / np.where(deviation > 0, deviation, 1)
    return np.concatenate([scaled, np.ones((len(styles), 1))], axis=1)

"""AlpacaEval 2: preferences into a raw and a length-controlled win rate.

Raw (Li et al. 2023): the mean of preference - 1, and its standard error.

Length-controlled (Dubois et al. 2024, arXiv:2404.04475): what the win rate were if the model's answers were as long as
the baseline's. The published logistic regression of a model's preferences has three terms: the model's own, tanh of the
difference of lengths in characters over its standard deviation, and the difficulty of the instruction; two further runs
of the baseline, of other lengths, hold the term of length in place. The win rate is the mean over the instructions with
the term of length at zero.

What we leave out: the difficulties and the further runs. Their files, fitted to the answers of the whole leaderboard,
hang on its annotator and its 805 instructions, and are licensed CC-BY-NC. In their place stand what can be seen of
them, and what the published coefficients say of the rest:

- the logarithm of the length of the baseline's answer: the seen part of the difficulty. Where little is to be said a
  model wins more often, and is not much shorter either; without this the term of length takes it all.
- a normal spread over instructions, integrated out: the unseen part. It is about as wide as makes the published
  coefficients of 23 models (none of those below) give their published length-controlled win rates.
- a normal prior of the term of length: mean and spread of the published coefficients over the leaderboard.

So ours stands beside the leaderboard's figure, never on the leaderboard. Over nine of its models ours differs by 0.4
points in the mean and 1 at most; the terms, though not their numbers, were chosen with a view to those nine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlhi.analyze.estimates import Bootstrap
from rlhi.benchmark.logistic import Logistic, Vector
from rlhi.benchmark.rates import Rate, Rows, rate

REGRESSION = Logistic(
    mean=np.array(
        [-1.55, 0.0, 0.0]
    ),  # of the terms of length, as published, of the baseline's length, and of the model
    deviation=np.array([0.35, 10.0, 10.0]),  # 10 leaves a term free
    spread=1.5,  # of the difficulty
)
COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Judged:
    """One instruction: how far the model's answer is preferred, in [0, 1], and the lengths in characters.

    ``preferred`` is the published preference, which lies in [1, 2], less 1.
    """

    preferred: float
    model_length: int
    baseline_length: int


def raw(judged: Sequence[Judged], bootstrap: Bootstrap) -> Rate:
    """How often the model's answer is preferred; the standard error is the mean's, with n - 1 below, as published."""
    won = _preferred(judged)
    found = rate(len(won), lambda own: float(won[own].mean()), bootstrap, COVERAGE)
    return found if len(won) < 2 else replace(found, standard_error=float(won.std(ddof=1)) / math.sqrt(len(won)))


def length_controlled(judged: Sequence[Judged], bootstrap: Bootstrap) -> Rate:
    """The win rate at equal lengths, by the regression above; null for fewer than two instructions.

    The standard error is the bootstrap's. The published one is the spread of the fitted preferences over the
    instructions, which says nothing of how sure the regression is.
    """
    if len(judged) < 2:
        return Rate(None, None, None, None, len(judged))
    terms, won, once = _terms(judged), _preferred(judged), np.ones(len(judged))
    whole = REGRESSION.fit(terms, won, once)

    def at_equal_length(own: Rows) -> float:
        found = REGRESSION.fit(terms[own], won[own], once, whole)
        return float(REGRESSION.expected(terms[own, 1:] @ found[1:])[0].mean())

    return rate(len(won), at_equal_length, bootstrap, COVERAGE)


def _preferred(judged: Sequence[Judged]) -> Vector:
    return np.array([each.preferred for each in judged])


def _terms(judged: Sequence[Judged]) -> Vector:
    """One row per instruction: difference of lengths (published), logarithm of the baseline's length, and 1."""
    ours = np.array([each.model_length for each in judged], float)
    theirs = np.array([each.baseline_length for each in judged], float)
    difference, long = theirs - ours, np.log1p(theirs)
    scaled = difference / (difference.std(ddof=1) or 1.0)
    return np.stack([np.tanh(scaled), (long - long.mean()) / (long.std() or 1.0), np.ones(len(judged))], axis=1)

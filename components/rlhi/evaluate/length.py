"""Win rates with the length of answers taken out: what they would be if both answers were equally long.

After length-controlled AlpacaEval (Dubois et al. 2024, arXiv 2404.04475), whose model of a preference is

    P(ours wins on turn t) = sigmoid(theta + phi * tanh(d_t / std(d)) + difficulty of t)

with d_t the characters of our answer less those of the opponent's. We keep the first two terms; the third is learned
from many models' results on the same instructions, and our turns have none. theta and phi are fitted to the turn scores
s_t (1, 0.5 or 0) by logistic likelihood, with a ridge of `RIDGE` that only keeps them finite where one side wins all.
With phi set to 0 the length-controlled win rate is sigmoid(theta). Swapping the sides gives 1 less it. The interval
draws users with all their turns and fits anew; std(d) stays that of all turns.
"""

from collections.abc import Sequence

import numpy as np

from rlhi.evaluate.clusters import bounds, drawn_users

RIDGE = 0.01
STEPS = 30  # of Newton; from zero, a dozen are enough
AT_ONCE = 1 << 21  # weights of turns in memory


def length_controlled(
    turns: Sequence[tuple[str, float, int]], resamples: int, seed: int
) -> tuple[float, tuple[float, float] | None] | None:
    """The length-controlled win rate and its 95% interval, from (user id, score, characters longer) of each turn.

    Null where one side is longer on every turn, or by the same on all: of equal lengths nothing is known then, and the
    effect of length cannot be told from the model's. The interval is null for fewer than two users.
    """
    longer = np.array([extra for _, _, extra in turns], float)
    if len(turns) < 2 or longer.std() == 0 or longer.min() > 0 or longer.max() < 0:
        return None
    names = sorted({user for user, _, _ in turns})
    place = {user: index for index, user in enumerate(names)}
    user = np.array([place[user] for user, _, _ in turns])
    score, lengths = np.array([score for _, score, _ in turns]), np.tanh(longer / longer.std())
    (rate,) = _fit(np.ones((1, len(turns))), score, lengths)
    if len(names) < 2:
        return float(rate), None
    rates = []
    for drawn in drawn_users(len(names), resamples, seed, AT_ONCE * len(names) // len(turns)):
        taken = np.zeros(drawn.shape)
        np.add.at(taken, (np.arange(len(drawn))[:, None], drawn), 1)
        rates.append(_fit(taken[:, user], score, lengths))
    return float(rate), bounds(rates)


def _fit(weights: np.ndarray, score: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """sigmoid(theta) for each row of ``weights`` (fits, turns), by Newton's method."""
    theta, phi = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(STEPS):
        won = _sigmoid(theta[:, None] + phi[:, None] * lengths)
        off, curve = weights * (score - won), weights * won * (1 - won)
        slope_theta, slope_phi = off.sum(1) - RIDGE * theta, off @ lengths - RIDGE * phi
        a, b, c = curve.sum(1) + RIDGE, curve @ lengths, curve @ lengths**2 + RIDGE
        determinant = a * c - b * b
        step_theta = (c * slope_theta - b * slope_phi) / determinant
        step_phi = (a * slope_phi - b * slope_theta) / determinant
        theta, phi = theta + np.clip(step_theta, -1, 1), phi + np.clip(step_phi, -1, 1)
        if max(np.abs(step_theta).max(), np.abs(step_phi).max()) < 1e-8:
            break
    return _sigmoid(theta)


def _sigmoid(value: np.ndarray) -> np.ndarray:
    found: np.ndarray = 1 / (1 + np.exp(-value))
    return found

"""What to believe of a mean over turns whose users differ: an interval and a test that draw users, never turns."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

DRAWN = 1 << 22  # users drawn at a time: with all users of a big log, all resamples at once would not fit into memory
Scores = Mapping[str, Sequence[float]]  # each user's turns


def interval(scores: Scores, resamples: int, seed: int) -> tuple[float, float] | None:
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
    drawn = drawn_users(len(users), resamples, seed, DRAWN)
    return bounds([sums[one].sum(axis=1) / counts[one].sum(axis=1) for one in drawn])


def drawn_users(users: int, resamples: int, seed: int, at_once: int) -> Iterator[np.ndarray]:
    """Places of users drawn with replacement, (resamples, users), some resamples at a time: ``at_once`` numbers."""
    random, most = np.random.default_rng(seed), max(1, at_once // users)
    for start in range(0, resamples, most):
        yield random.integers(users, size=(min(most, resamples - start), users))


def bounds(resampled: Sequence[np.ndarray]) -> tuple[float, float]:
    """The 2.5% and 97.5% quantiles of what the resamples gave."""
    low, high = np.quantile(np.concatenate(resampled), [0.025, 0.975])
    return float(low), float(high)


def flip_test(differences: Scores, resamples: int, seed: int) -> float | None:
    """The two-sided p-value that the differences of turns have no direction; null for fewer than two users.

    If neither side were better, each user's sum D_u could as well have had the other sign. p is the share of sign
    patterns over users with |sum of ±D_u| at least |sum of D_u|: of all patterns where there are at most ``resamples``,
    else of that many drawn, the observed one counted in. Users are flipped whole, since their turns are alike.
    """
    users = sorted(user for user, values in differences.items() if values)
    if len(users) < 2:
        return None
    sums = np.array([math.fsum(differences[user]) for user in users])
    observed = abs(math.fsum(sums)) - 1e-9  # what is equal but for rounding is as far
    if 2 ** len(users) <= resamples:
        patterns = np.array(list(itertools.product((1, -1), repeat=len(users))))
        return float(np.mean(np.abs(patterns @ sums) >= observed))
    random, most = np.random.default_rng(seed), max(1, DRAWN // len(users))
    extreme = 0
    for start in range(0, resamples, most):
        signs = random.integers(2, size=(min(most, resamples - start), len(users))) * 2 - 1
        extreme += int(np.sum(np.abs(signs @ sums) >= observed))
    return (1 + extreme) / (1 + resamples)

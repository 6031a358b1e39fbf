"""A figure with what it stands on: how many rows of how many users, and an interval that knows that users differ."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from rlhi.evaluate.clusters import interval


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How the intervals are drawn."""

    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of ``count`` rows of ``users`` users; null where there is no row. Of a share, rows are 0 or 1.

    ``low`` and ``high`` bound the 95% interval, drawn over users; null where fewer than two tell how they differ.
    """

    value: float | None
    low: float | None
    high: float | None
    count: int
    users: int


def estimate(rows: Iterable[tuple[str, float]], bootstrap: Bootstrap) -> Estimate:
    """The mean over (user id, value)."""
    values: dict[str, list[float]] = defaultdict(list)
    for user, value in rows:
        values[user].append(value)
    count = sum(map(len, values.values()))
    if not count:
        return Estimate(None, None, None, 0, 0)
    low, high = interval(values, bootstrap.resamples, bootstrap.seed) or (None, None)
    return Estimate(sum(map(sum, values.values())) / count, low, high, count, len(values))

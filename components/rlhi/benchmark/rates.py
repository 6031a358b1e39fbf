"""Rates over the items of a benchmark, with intervals by bootstrap over items."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhi.analyze.estimates import Bootstrap

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate in [0, 1] over ``items``, its standard error, and the bounds of its interval; null is not measured."""

    value: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    items: int


def rate(items: int, figure: Callable[[Rows], float], bootstrap: Bootstrap, coverage: float) -> Rate:
    """``figure`` of the rows of all items, and the central interval that holds ``coverage`` of those of its resamples.

    No interval from fewer than two items, and no rate from none.
    """
    if items < 2:
        return Rate(figure(np.arange(items)) if items else None, None, None, None, items)
    random = np.random.default_rng(bootstrap.seed)
    drawn = np.array([figure(random.integers(items, size=items)) for _ in range(bootstrap.resamples)])
    low, high = np.quantile(drawn, [(1 - coverage) / 2, (1 + coverage) / 2])
    return Rate(figure(np.arange(items)), float(drawn.std(ddof=1)), float(low), float(high), items)

"""Logistic regression of shares, with normal priors and, by choice, a spread between rows that no term explains.

Our own, since the libraries' have neither priors that are not at zero nor the spread, and since a bootstrap fits it
some thousand times.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray

Vector = NDArray[np.float64]
STEPS = 50


@dataclass(frozen=True, slots=True)
class Logistic:
    """The priors of the coefficients, in logits, and the standard deviation of the spread between rows, in logits.

    Priors keep a fit finite where all rows have one outcome.
    """

    mean: Vector
    deviation: Vector
    spread: float = 0.0

    def fit(self, terms: Vector, won: Vector, counted: Vector, start: Vector | None = None) -> Vector:
        """The likeliest coefficients given the priors, by Fisher scoring from ``start`` or the priors' means.

        ``terms`` is (rows, coefficients); of ``counted`` trials of a row ``won`` were won, and neither need be whole.
        """
        found, precision = self.mean if start is None else start, self.deviation**-2.0
        for _ in range(STEPS):
            rate, slope = self.expected(terms @ found)
            pull = slope / (rate * (1 - rate))
            gradient = terms.T @ (pull * (won - counted * rate)) - precision * (found - self.mean)
            curvature = terms.T @ ((pull * slope * counted)[:, None] * terms) + np.diag(precision)
            step = np.clip(np.linalg.solve(curvature, gradient), -1.0, 1.0)
            found = found + step
            if np.abs(step).max() < 1e-6:
                break
        return found

    def expected(self, logits: Vector) -> tuple[Vector, Vector]:
        """The share to expect at each logit, over the spread, and how it grows with the logit."""
        nodes, weights = _normal(9 if self.spread else 1)
        each = 1 / (1 + np.exp(-(logits[:, None] + self.spread * nodes)))
        return np.clip(each @ weights, 1e-12, 1 - 1e-12), np.maximum((each * (1 - each)) @ weights, 1e-12)


@lru_cache
def _normal(count: int) -> tuple[Vector, Vector]:
    """Points and weights whose sum stands for the mean over a standard normal: Gauss and Hermite's."""
    nodes, weights = hermegauss(count)
    return nodes, weights / weights.sum()

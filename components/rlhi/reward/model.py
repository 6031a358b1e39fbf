"""What a reward model is, whatever it computes with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rlhi.records import Candidates, Missing

Why = Literal["empty_answer", "no_persona", "too_long", "not_a_number", "unreadable"] | Missing


@dataclass(frozen=True, slots=True)
class Unscored:
    """An answer without a reward, and why; ``said`` is what a judge wrote in place of a grade."""

    why: Why
    said: str = ""


Score = float | Unscored


class RewardModel(Protocol):
    """r(y | x, p): higher is better, on a scale of the model's own."""

    def score(self, rows: Sequence[Candidates]) -> list[list[Score]]:
        """For each row the score of each of its answers, given the row's context and persona.

        A row's scores hang on the row alone, never on the rows beside it.
        """

    @property
    def scale(self) -> str:
        """The name of the scale: thresholds made for one mean nothing on another."""

    @property
    def bounded(self) -> bool:
        """Whether all scores lie in [0, 1] by design; else it is a sigmoid that nobody asked for."""

    @property
    def note(self) -> str:
        """What the rewards mean and what was checked, for manifest and report."""

    @property
    def identity(self) -> str:
        """What scores depend on beside the row: weights, contract, whether the persona is seen. No secret."""


def number(value: float) -> Score:
    """A computed reward, or null where it is none: not a number, or infinite."""
    return value if math.isfinite(value) else Unscored("not_a_number")

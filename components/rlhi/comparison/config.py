"""The settings of comparison."""

import re

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED, StageConfig
from rlhi.errors import InputError

NAME = re.compile(r"[^=,/\s][^=,/]*")


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class ComparisonConfig(StageConfig):
    """Which arms, in which order, and which of them the others are held against."""

    name: str = Field(default="Evaluations compared", min_length=1, description="The experiment's name: the title.")
    arms: tuple[str, ...] = Field(default=(), description="The arms in the order of the page; none: as they are given.")
    baseline: str | None = Field(
        default=None, description="The arm that the others are held against, turn by turn; null: the first."
    )
    resamples: int = Field(
        default=2000,
        ge=100,
        description="Resamples of items for the intervals and tests of benchmarks; win rates keep evaluate's.",
    )

    def check(self) -> None:
        """Refuses names that are none or stand twice, and a baseline that is no arm.

        Raises:
            InputError: as above.
        """
        for place, arm in enumerate(self.arms):
            if not NAME.fullmatch(arm):
                raise InputError(f"comparison.arms: {arm!r} is no name; leave out '=', ',' and '/'")
            if arm in self.arms[:place]:
                raise InputError(f"comparison.arms: {arm!r} stands there twice; give each arm a name of its own")
        if self.baseline is not None and self.arms and self.baseline not in self.arms:
            raise InputError(f"comparison.baseline: {self.baseline!r} is no arm; one of {', '.join(self.arms)}")

    @property
    def against(self) -> str:
        """The arm that the others are held against."""
        return self.arms[0] if self.baseline is None else self.baseline

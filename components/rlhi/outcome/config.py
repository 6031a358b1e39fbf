"""What the last task of a run writes down, and where."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class OutcomeConfig:
    """Of one run."""

    place: str = Field(description="s3:// prefix of the outcomes, one object for each run.")
    recipe: str = Field(default="", description="What was run.")

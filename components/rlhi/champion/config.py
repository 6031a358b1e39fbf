"""Of which registered model the champion is fetched."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED, StageConfig


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class ChampionConfig(StageConfig):
    """Its name."""

    name: str = Field(default="rlhi", pattern=r"^[\w. -]+$", description="Name of the registered model in MLflow.")

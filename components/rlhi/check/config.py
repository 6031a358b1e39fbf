"""What a run needs, as the task before the first stage checks it. It names variables and holds no secret."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class CheckConfig:
    """All that must be there before hours of work begin."""

    place: str = Field(default="", description="s3:// prefix that must be readable and writable; empty: none.")
    variables: tuple[str, ...] = Field(default=(), description="Variables that must be set.")
    models: tuple[str, ...] = Field(default=(), description="Models that must be readable: id, or id@revision.")
    servers: dict[str, str] = Field(
        default_factory=dict, description="OpenAI-compatible servers that must answer: variable with the key, by URL."
    )
    accelerators: tuple[str, ...] = Field(
        default=(), description="Resources such as nvidia.com/gpu that a node must have."
    )
    seconds: float = Field(default=45, gt=0, le=60, description="After which what has not answered counts as missing.")

"""The settings of ingest."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED, StageConfig
from rlhi.ingest.kinds import Kind
from rlhi.ingest.mapping import Mapping
from rlhi.ingest.users import UserBy
from rlhi.pii import KINDS as PERSONAL
from rlhi.pii import Kind as Personal


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class IngestConfig(StageConfig):
    """What is read, the filters of C.1 and more, personal data, and the split."""

    kind: Literal["auto"] | Kind = Field(default="auto", description="What the source is; 'auto' tells by its fields.")
    mapping: Mapping = Field(default_factory=Mapping)
    user_by: UserBy = Field(
        default="id",
        description="A user is an id of the source, an id with a browser, or each conversation its own (no ids there).",
    )
    untimed: Literal["drop", "keep"] = Field(
        default="drop", description="Conversations without a time; kept, they count as a user's oldest."
    )
    language: str | None = Field(
        default="English", description="Keep conversations of this language; null keeps all (C.1)."
    )
    max_turns: int = Field(default=10, ge=1, description="Longest conversation, in exchanges of two messages (C.1).")
    min_conversations: int = Field(default=3, ge=1, description="Users with fewer are dropped (C.1).")
    max_conversations: int = Field(default=100, ge=1, description="Users with more are dropped (C.1).")
    drop_toxic: bool = Field(default=False, description="Drop what the source flags as toxic.")
    drop_redacted: bool = Field(default=False, description="Drop what the source flags as redacted.")
    drop_duplicates: bool = Field(default=True, description="Drop conversations whose text was already read.")
    near_duplicates: float | None = Field(
        default=None, gt=0, le=1, description="Drop conversations this similar to an earlier one, for instance 0.8."
    )
    newest: int | None = Field(default=None, ge=1, description="Conversations taken per user at most, the newest.")
    redact: tuple[Personal, ...] = Field(default=PERSONAL, description="Personal data to replace; [] for none.")
    phone_regions: tuple[str, ...] = Field(
        default=("US",), description="Countries whose phone numbers are known without a leading +."
    )
    eval_share: float = Field(default=0.2, ge=0, le=1, description="Share of users kept for evaluation (3.1).")
    eval_min_conversations: int = Field(default=10, ge=2, description="Evaluation users with fewer are dropped (3.4).")
    held_out: int = Field(
        default=5, ge=1, description="Last conversations of an evaluation user that are held out (3.4)."
    )
    max_users: int | None = Field(default=None, ge=1, description="Users taken at most, by seed; null takes all.")
    max_solutions: int | None = Field(
        default=10_000, ge=1, description="Erroneous solutions taken of a reasoning source, by seed (C.3)."
    )

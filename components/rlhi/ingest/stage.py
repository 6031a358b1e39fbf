"""Turns raw chat logs into conversations with users and a split.

Reads WildChat's schema from Parquet or JSONL. The filters of C.1 run in a stated order: broken conversations, language,
Midjourney prompts, length, then the number of conversations per user, counted after the filters before it. Users with
"meaningful feedback" (C.1, 6) are not selected here: it takes a model, and `rewrite` uses feedback turns only.

A user is split by the hash of id and seed, so that new data moves nobody. The last conversations of an evaluation user
are held out and feed neither personas nor pairs (3.4).
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Output
from rlhi.caps import beyond
from rlhi.config import CLOSED, StageConfig, digest
from rlhi.errors import InputError
from rlhi.ingest.wildchat import read_rows
from rlhi.records import Conversation, Dropped, Reason, Split

MIDJOURNEY = "as a prompt generator for a generative ai called"


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class IngestConfig(StageConfig):
    """The filters of C.1 and the split."""

    language: str | None = Field(
        default="English", description="Keep conversations of this language; null keeps all (C.1)."
    )
    max_turns: int = Field(default=10, ge=1, description="Longest conversation, in exchanges of two messages (C.1).")
    min_conversations: int = Field(default=3, ge=1, description="Users with fewer are dropped (C.1).")
    max_conversations: int = Field(default=100, ge=1, description="Users with more are dropped (C.1).")
    eval_share: float = Field(default=0.2, ge=0, le=1, description="Share of users kept for evaluation (3.1).")
    eval_min_conversations: int = Field(default=10, ge=2, description="Evaluation users with fewer are dropped (3.4).")
    held_out: int = Field(
        default=5, ge=1, description="Last conversations of an evaluation user that are held out (3.4)."
    )
    max_users: int | None = Field(default=None, ge=1, description="Users taken at most, by seed; null takes all.")


def run(source: str, conversations: Output[Conversation], config: IngestConfig) -> None:
    """Reads ``source`` and writes the conversations that stay.

    Raises:
        InputError: nothing to read, a file that is neither Parquet nor JSONL, a wrong schema, or nothing left.
    """
    if config.held_out >= config.eval_min_conversations:
        raise InputError(
            f"ingest.held_out={config.held_out} leaves no history of users with "
            f"ingest.eval_min_conversations={config.eval_min_conversations}; make it smaller"
        )
    rows, broken = read_rows(source)
    kept, dropped = ingest(rows, config)
    conversations.write(kept, broken + dropped, len(rows) + len(broken))
    if not kept:
        counts = ", ".join(f"{reason} {n}" for reason, n in conversations.dropped.items())
        raise InputError(f"{source}: none of {conversations.rows_in} conversations is left ({counts}); loosen a filter")
    users = {split: len({row.user_id for row in kept if row.split == split}) for split in ("train", "held-out")}
    conversations.measure({"users_train": users["train"], "users_held_out": users["held-out"]})


def ingest(rows: Sequence[Conversation], config: IngestConfig) -> tuple[list[Conversation], list[Dropped]]:
    """Filters, then splits. Order in is order out."""
    dropped: list[Dropped] = []
    for keep in (_first_of_id(), *_row_filters(config)):
        rows = _apply(rows, keep, dropped)
    rows = _apply(rows, _user_filter(rows, config), dropped)
    splits = split(rows, config)
    return [dataclasses.replace(row, split=splits[row.id]) for row in rows], dropped


def split(rows: Iterable[Conversation], config: IngestConfig) -> dict[str, Split]:
    """Conversation id to split: the share of users with the lowest hash are for evaluation."""
    by_user: dict[str, list[Conversation]] = defaultdict(list)
    for row in rows:
        by_user[row.user_id].append(row)
    splits: dict[str, Split] = {}
    for user, own in by_user.items():
        ordered = sorted(own, key=lambda row: (row.timestamp, row.id))
        evaluated = is_evaluated(user, config)
        for place, row in enumerate(ordered):
            last = place >= len(ordered) - config.held_out
            splits[row.id] = ("held-out" if last else "reference") if evaluated else "train"
    return splits


def is_evaluated(user_id: str, config: IngestConfig) -> bool:
    """Whether a user is kept for evaluation; depends on nothing but the id and the seed."""
    return int(digest(f"split {config.seed} {user_id}"), 16) < config.eval_share * 16**16


Filter = Callable[[Conversation], Reason | None]


def _apply(rows: Sequence[Conversation], keep: Filter, dropped: list[Dropped]) -> list[Conversation]:
    kept = []
    for row in rows:
        reason = keep(row)
        if reason is None:
            kept.append(row)
        else:
            dropped.append(Dropped(row.id, reason))
    return kept


def _first_of_id() -> Filter:
    seen: set[str] = set()

    def keep(row: Conversation) -> Reason | None:
        if row.id in seen:
            return "duplicate_id"
        seen.add(row.id)
        return None

    return keep


def _row_filters(config: IngestConfig) -> tuple[Filter, ...]:
    def language(row: Conversation) -> Reason | None:
        return "language" if config.language is not None and row.language != config.language else None

    def midjourney(row: Conversation) -> Reason | None:
        first = next(message.content for message in row.messages if message.role == "user")
        return "midjourney" if first.lstrip().lower().startswith(MIDJOURNEY) and "midjourney" in first.lower() else None

    def turns(row: Conversation) -> Reason | None:
        exchanges = sum(message.role == "user" for message in row.messages)
        return "too_many_turns" if exchanges > config.max_turns else None

    return language, midjourney, turns


def _user_filter(rows: Sequence[Conversation], config: IngestConfig) -> Filter:
    """Conversations per user are counted after the filters before it; C.1 does not say when."""
    counts = Counter(row.user_id for row in rows)
    enough = [user for user, n in counts.items() if config.min_conversations <= n <= config.max_conversations]
    others = beyond(enough, config.max_users, config.seed)

    def keep(row: Conversation) -> Reason | None:
        count = counts[row.user_id]
        if count > config.max_conversations:
            return "too_many_conversations"
        if count < config.min_conversations:
            return "too_few_conversations"
        if is_evaluated(row.user_id, config) and count < config.eval_min_conversations:
            return "too_few_conversations"
        return "user_cap" if row.user_id in others else None

    return keep

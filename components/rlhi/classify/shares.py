"""How often users say what: the share of each label among all user messages, beside the paper's."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from rlhi.records import Dropped, Label, Turn

SHARE = "share/"


@dataclass(frozen=True)
class LabelShares:
    """Shares of all user messages by label, or by why there is none; ``said`` is who labelled what."""

    said: str
    shares: Mapping[str, float]


def label_shares(turns: Iterable[Turn], dropped: Iterable[Dropped]) -> dict[str, float]:
    """The share of every label, and of why a message has none; together 1. Empty where nobody said anything."""
    counts = Counter[str]({**dict.fromkeys(get_args(Label), 0), "unreadable_label": 0, "prompt_too_long": 0})
    counts.update(turn.label for turn in turns)
    counts.update(row.reason for row in dropped)
    total = counts.total()
    return {name: n / total for name, n in counts.items()} if total else {}


def labelled_by(model: str, messages: int, conversations: int) -> str:
    """What the shares of this run and the paper's are shares of."""
    return (
        f"{model} labelled {messages:,} user messages of {conversations:,} conversations. The paper's shares (2.2) are "
        "GPT-4o's on WildChat-1M, it seems on conversations of several turns. Another model and other data: they say "
        "what to expect, not what to reach."
    )


def measured_shares(metrics: Mapping[str, float]) -> dict[str, float]:
    """The shares among the stage's metrics."""
    return {name.removeprefix(SHARE): share for name, share in metrics.items() if name.startswith(SHARE)}

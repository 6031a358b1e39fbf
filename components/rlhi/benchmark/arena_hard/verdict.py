"""What a judge of Arena-Hard wrote, read as published: one of five labels, or null."""

import re

LABELS = {"A>>B": (1.0, 3), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, 3)}
WRITTEN = re.compile(r"\[\[([AB<>=]+)\]\]")


def read_label(text: str) -> str | None:
    """The label in double brackets; null where there is none, where two differ, and where it is none of the five."""
    found = set(WRITTEN.findall(text))
    return found.pop() if len(found) == 1 and found <= LABELS.keys() else None


def outcome(label: str, *, model_first: bool) -> tuple[float, int]:
    """The model's share of the game, and how often the game counts: three times where one answer is much better."""
    first, weight = LABELS[label]
    return (first if model_first else 1 - first), weight

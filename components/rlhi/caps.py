"""Takes a part of the rows by seed: which ones depends on seed and id, not on order or on the other rows' fate."""

from collections.abc import Iterable

from rlhi.config import digest


def beyond(keys: Iterable[str], most: int | None, seed: int, turn: int = 1) -> set[str]:
    """The keys that are left out when ``most`` are taken; none where ``most`` is null.

    The ``turn``-th time, from 1, the next ones in the order by seed are taken; after the last the first come again.
    """
    ranked = sorted(set(keys), key=lambda key: digest(f"cap {seed} {key}"))
    if most is None or most >= len(ranked):
        return set()
    start = (turn - 1) * most % len(ranked)
    return set((ranked[start:] + ranked[:start])[most:])

"""Takes a part of the rows by seed: which ones depends on seed and id, not on order or on the other rows' fate."""

from collections.abc import Iterable

from rlhi.config import digest


def beyond(keys: Iterable[str], most: int | None, seed: int) -> set[str]:
    """The keys that are left out when ``most`` are taken; none where ``most`` is null."""
    ranked = sorted(set(keys), key=lambda key: digest(f"cap {seed} {key}"))
    return set() if most is None else set(ranked[most:])

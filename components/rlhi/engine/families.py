"""Which prompts are computed together, so that what they share is computed once."""

from collections.abc import Sequence
from itertools import pairwise

from rlhi.trees import shared_head

WORTH = 0.75  # of the tokens, for which smaller batches are worth it
DEEPEST = 32  # heads within heads that are looked at


def families(prompts: Sequence[list[int]]) -> list[list[int]]:
    """Indices in groups, each to be computed behind a head of its own, so that fewer tokens are.

    A judge's questions about one turn share its history and differ in the answers: they are a family. Prompts that
    would save less together than their head costs stay with the rest.
    """
    if not prompts:
        return []
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])
    lengths = [len(prompts[i]) for i in order]
    shared = [shared_head([prompts[before], prompts[after]]) for before, after in pairwise(order)]
    _, groups = _cheapest(range(len(order)), lengths, shared, DEEPEST)
    return [[order[place] for place in group] for group in groups]


def _cheapest(group: range, lengths: list[int], shared: list[int], deepest: int) -> tuple[int, list[list[int]]]:
    """Tokens to compute for neighbours in the order, and the groups to compute them in.

    ``lengths`` are theirs, ``shared`` is what each shares with the next.
    """
    head = min((shared[place] for place in group[:-1]), default=lengths[group[0]] - 1)
    cuts = [place + 1 for place in group[:-1] if shared[place] == head]
    cost = 0
    groups: list[list[int]] = []
    rest: list[int] = []
    for start, stop in pairwise([group.start, *cuts, group.stop]):
        behind = sum(lengths[start:stop]) - head * (stop - start)
        part = range(start, stop)
        apart, found = _cheapest(part, lengths, shared, deepest - 1) if len(part) > 1 and deepest else (behind, [])
        if apart <= WORTH * behind:
            groups += found
            cost += apart
        else:
            rest += part
            cost += behind
    return cost + head * bool(rest), [*groups, rest] if rest else groups

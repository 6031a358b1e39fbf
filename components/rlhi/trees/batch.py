"""What a body computes at once, whatever the layout, and the plain layout: one padded row for each branch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from rlhi.trees.segments import Segments
from rlhi.trees.tree import Tree


@dataclass(frozen=True, slots=True)
class Place:
    """Where a branch lies among a batch's tokens, which are counted row after row.

    Its own are ``start`` to ``stop``; ``before`` is the last one of its prompt, -1 where the prompt is empty.
    """

    tree: int
    branch: int
    before: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids and their positions, each (rows, width), and where the branches lie.

    A padded batch has a ``mask``, (rows, width), 0 on padding. A packed one is a single row with ``segments``.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    places: Sequence[Place]
    mask: torch.Tensor | None = None
    segments: Segments | None = None


def padded(trees: Sequence[Tree], budget: int) -> Iterator[Batch]:
    """Prompt and branch as one row, padded on the right; rows of similar length, ``budget`` tokens with the padding."""
    every = [(i, k) for i, tree in enumerate(trees) for k in range(len(tree.branches))]
    every.sort(key=lambda at: len(trees[at[0]].prompt) + len(trees[at[0]].branches[at[1]]))
    part: list[tuple[int, int]] = []
    for i, k in every:
        width = len(trees[i].prompt) + len(trees[i].branches[k])
        if part and width * (len(part) + 1) > budget:
            yield _pad(trees, part)
            part = []
        part.append((i, k))
    if part:
        yield _pad(trees, part)


def _pad(trees: Sequence[Tree], part: Sequence[tuple[int, int]]) -> Batch:
    rows = [[*trees[i].prompt, *trees[i].branches[k]] for i, k in part]
    width = max(len(row) for row in rows)
    places = []
    for number, ((i, k), row) in enumerate(zip(part, rows, strict=True)):
        start, first = number * width, len(trees[i].prompt)
        places.append(Place(i, k, start + first - 1 if first else -1, start + first, start + len(row)))
    return Batch(
        ids=torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        positions=torch.arange(width).expand(len(rows), width),
        places=places,
        mask=torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    )

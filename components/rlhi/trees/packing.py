"""The packed layout: a row holds whole trees, each prompt once, and no padding.

    [head][rest of prompt 1][branch 1][branch 2] ... [rest of prompt 2][branch 1] ...

The head is what all prompts of a call begin with (instructions, a persona's preamble); a row computes it once.
Positions are those that a branch would have behind its prompt alone.
"""

from collections.abc import Iterator, Sequence

import torch

from rlhi.trees.batch import Batch, Place
from rlhi.trees.segments import Segment, Segments, Span
from rlhi.trees.tree import Tree, shared_head

HEAD = 16  # tokens; sharing fewer saves less than another segment costs


def packed(trees: Sequence[Tree], budget: int) -> Iterator[Batch]:
    """Rows of at most ``budget`` tokens, trees in order. A larger tree is cut into rows that repeat its prompt.

    A prompt and one branch are never cut, so that a row can be longer than the budget.
    """
    head = _shared(trees)
    row, size = _Row(), 0
    for i, tree in enumerate(trees):
        for part in _parts(tree, budget):
            need = len(tree.prompt) - head + sum(len(tree.branches[k]) for k in part)
            if row.places and size + need > budget:
                yield row.batch()
                row = _Row()
            if not row.places:
                stem, size = row.add(tree.prompt[:head], ()), head
            context = row.add(tree.prompt[head:], stem)
            for k in part:
                row.branch(i, k, tree.branches[k], context)
            size += need
    if row.places:
        yield row.batch()


def one_row(trees: Sequence[Tree]) -> Batch:
    """All of ``trees`` as one row, however long."""
    (batch,) = packed(trees, sum(len(tree.prompt) + sum(map(len, tree.branches)) for tree in trees))
    return batch


def _shared(trees: Sequence[Tree]) -> int:
    same = shared_head([tree.prompt for tree in trees]) if len(trees) > 1 else 0
    return same if same >= HEAD else 0


def _parts(tree: Tree, budget: int) -> Iterator[list[int]]:
    part, size = [0], len(tree.prompt) + len(tree.branches[0])
    for k, branch in enumerate(tree.branches[1:], 1):
        if size + len(branch) > budget:
            yield part
            part, size = [], len(tree.prompt)
        part.append(k)
        size += len(branch)
    yield part


class _Row:
    """A row that grows."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []
        self.places: list[Place] = []

    def add(self, tokens: Sequence[int], context: tuple[Span, ...]) -> tuple[Span, ...]:
        """Puts ``tokens`` in, behind what they follow; gives what the next ones follow."""
        if not tokens:
            return context
        start, first = len(self.ids), sum(stop - start for start, stop in context)
        stop = start + len(tokens)
        self.ids.extend(tokens)
        self.positions.extend(range(first, first + len(tokens)))
        self.segments.append(Segment(start, stop, context))
        return (*context, (start, stop))

    def branch(self, tree: int, branch: int, tokens: Sequence[int], context: tuple[Span, ...]) -> None:
        """Puts a branch in; it may be empty."""
        start = len(self.ids)
        self.add(tokens, context)
        self.places.append(Place(tree, branch, context[-1][1] - 1 if context else -1, start, len(self.ids)))

    def batch(self) -> Batch:
        """The row as tensors."""
        return Batch(
            ids=torch.tensor([self.ids]),
            positions=torch.tensor([self.positions]),
            places=self.places,
            segments=Segments(self.segments),
        )

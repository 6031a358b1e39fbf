"""A prefix tree: a prompt and the branches that go on from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlhi.errors import InputError

Layout = Literal["packed", "padded"]


@dataclass(frozen=True, slots=True)
class Tree:
    """Token ids of a prompt and of what may follow it: answers, candidates, choices. Equal ones count each."""

    prompt: Sequence[int]
    branches: Sequence[Sequence[int]]


def check(trees: Sequence[Tree], *, prompts: bool) -> None:
    """Refuses trees that have nothing to compute; with ``prompts``, also those without a prompt.

    Raises:
        InputError: no branches, an empty branch, or an empty prompt.
    """
    for i, tree in enumerate(trees):
        if not tree.branches:
            raise InputError(f"tree {i}: has no branches; leave it out")
        for k, branch in enumerate(tree.branches):
            if not branch:
                raise InputError(f"tree {i}, branch {k}: is empty; leave it out, or add the token that ends an answer")
        if prompts and not tree.prompt:
            raise InputError(f"tree {i}: has an empty prompt, so nothing predicts the first token of its branches")


def shared_head(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with; at least one token of each prompt is left over."""
    low, high = min(prompts, key=list), max(prompts, key=list)  # all others lie between them
    limit = max(0, min(map(len, prompts)) - 1)
    return next((i for i in range(limit) if low[i] != high[i]), limit)

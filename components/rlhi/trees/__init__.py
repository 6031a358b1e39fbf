"""Prefix trees: a prompt with its answers is one packed structure, computed once and without padding.

Reward, reference and training scores all come from here (2.3, 2.4, eq. 1). `layout` chooses how: "packed" computes a
prompt once for all of its branches, "padded" is the plain way, one row for each branch, for models that the packed
layout does not know and as what it is compared with.
"""

from rlhi.trees.scoring import BUDGET, best_layout, branch_logprobs, last_hidden, stream_logprobs
from rlhi.trees.tree import Layout, Tree, shared_head

__all__ = [
    "BUDGET",
    "Layout",
    "Tree",
    "best_layout",
    "branch_logprobs",
    "last_hidden",
    "shared_head",
    "stream_logprobs",
]

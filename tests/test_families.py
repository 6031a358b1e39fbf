import random

import pytest

from rlhi.engine.families import families
from rlhi.trees import shared_head


def test_shared_head_leaves_a_token_of_every_prompt() -> None:
    assert shared_head([[1, 2, 3], [1, 2, 4]]) == 2
    assert shared_head([[1, 2], [1, 2, 4]]) == 1
    assert shared_head([[1], [2]]) == 0


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ([], []),
        ([[1, 2, 3]], [[0]]),
        ([[1, 2, 3], [4, 5, 6]], [[0, 1]]),
        ([[1, 2, 3, 4], [9, 8, 7, 6], [1, 2, 3, 5], [5]], [[0, 2], [3, 1]]),
        ([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 6]], [[0, 1, 2]]),
        ([[1, 2, 3], [1, 2, 3], [7, 8, 9], [7, 8, 9]], [[0, 1], [2, 3]]),
        # behind the two tokens of all, one more that two share is not worth computing those two again
        ([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 6, 7]], [[0, 1, 2]]),
        # a family within what is shared by others
        ([[1, 2, 2, 2, 2, 3], [1, 2, 2, 2, 2, 4], [1, 2, 2, 2, 2, 5], [1, 7], [1, 8]], [[0, 1, 2], [3, 4]]),
    ],
)
def test_prompts_are_a_family_where_that_saves_tokens(prompts: list[list[int]], expected: list[list[int]]) -> None:
    assert families(prompts) == expected


def test_families_never_cost_more_than_none() -> None:
    draw = random.Random(0)
    for _ in range(200):
        prompts = [[draw.randrange(2) for _ in range(draw.randint(1, 7))] for _ in range(draw.randint(1, 6))]
        found = families(prompts)
        assert sorted(i for family in found for i in family) == list(range(len(prompts)))
        assert tokens(prompts, found) <= tokens(prompts, [list(range(len(prompts)))])


def tokens(prompts: list[list[int]], groups: list[list[int]]) -> int:
    """Tokens computed: the head of each group once, and what is behind it."""
    heads = [shared_head([prompts[i] for i in group]) for group in groups]
    return sum(head + sum(len(prompts[i]) - head for i in group) for head, group in zip(heads, groups, strict=True))

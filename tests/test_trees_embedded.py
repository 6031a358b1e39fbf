"""The embedded model on real conversations: packed scores and gradients against padded ones."""

import gzip
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhi.config import ModelConfig
from rlhi.engine.models import Policy, load_policy
from rlhi.trees import Tree, branch_logprobs, last_hidden, shared_head
from tests.test_trees import dpo_gradient

PREF = Path(__file__).parents[2] / "shared" / "data" / "pref" / "hh-harmless-base-test.jsonl.gz"
PAIRS = 8
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(ModelConfig())


def test_gradients_are_those_of_the_padded_way(policy: Policy) -> None:
    prompt, *answers = (policy.renderer.encode(text) for text in ("Name a fruit.\n", "A fig, which is sweet.", "No."))
    trees = [Tree(prompt, answers)]
    found, expected = (
        dpo_gradient(policy.model, branch_logprobs(policy.model, trees, layout)) for layout in ("packed", "padded")
    )
    policy.model.zero_grad()
    assert torch.cosine_similarity(found, expected, 0) > 0.9999


@pytest.mark.skipif(not PREF.exists(), reason="needs the preferences in ../shared/data/pref")
@torch.inference_mode()  # type: ignore[untyped-decorator]
def test_scores_of_real_answers_are_those_of_the_padded_way(policy: Policy) -> None:
    torch.manual_seed(0)
    trees = preferences(policy)
    head = torch.randn(policy.model.config.hidden_size) / policy.model.config.hidden_size**0.5
    ways: list[tuple[Any, Any]] = [
        (last_hidden(policy.model, trees, layout), branch_logprobs(policy.model, trees, layout))
        for layout in ("packed", "padded")
    ]
    (states, logprobs), (plain_states, plain_logprobs) = ways
    for own, wanted in zip(states, plain_states, strict=True):
        torch.testing.assert_close(own @ head, wanted @ head, atol=1e-3, rtol=0)
        assert torch.equal((own @ head).argsort(), (wanted @ head).argsort())
    for own, wanted in zip(logprobs, plain_logprobs, strict=True):
        torch.testing.assert_close(own, wanted, atol=1e-2, rtol=1e-5)  # sums over hundreds of tokens
        assert torch.equal(own.argsort(), wanted.argsort())


def preferences(policy: Policy) -> list[Tree]:
    """Every hundredth pair: the conversation that both share, and the two answers."""
    with gzip.open(PREF, "rt") as file:
        pairs = [json.loads(line) for line in islice(file, 0, 100 * PAIRS, 100)]
    trees = []
    for pair in pairs:
        both = [policy.renderer.encode(pair[side]) for side in ("chosen", "rejected")]
        head = shared_head(both)
        trees.append(Tree(both[0][:head], [ids[head:] for ids in both]))
    return trees

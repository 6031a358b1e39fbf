"""Packed and padded scores against the plain way: one sequence at a time, by a model whose attention is untouched."""

from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import MistralConfig, MistralForCausalLM

from rlhi.errors import InputError
from rlhi.trees import Layout, Tree, attention, best_layout, branch_logprobs, last_hidden, scoring, shared_head
from rlhi.trees.batch import padded
from rlhi.trees.packing import HEAD, packed
from tests.trees import FAMILIES, SIZES, plain_logprobs, plain_states, tiny, tree

UNEVEN = [tree(50, 1, 7, 30), tree(3, 5), tree(20, 1, 1, 1), tree(40, 20, 20)]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@pytest.fixture(scope="module")
def plain() -> Any:
    return tiny("llama")


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny("llama")


def assert_close(found: list[torch.Tensor], expected: list[torch.Tensor], atol: float = 1e-4) -> None:
    for own, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(own, wanted, atol=atol, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()  # type: ignore[untyped-decorator]
def test_scores_are_those_of_the_plain_way(family: str, layout: Layout) -> None:
    model, plain = tiny(family), tiny(family)
    assert_close(last_hidden(model, UNEVEN, layout), plain_states(plain, UNEVEN))
    assert_close(branch_logprobs(model, UNEVEN, layout), plain_logprobs(plain, UNEVEN))


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@given(st.lists(st.tuples(st.integers(1, 60), LENGTHS), min_size=1, max_size=4), st.sampled_from([1, 60, 16384]))
@settings(max_examples=15)
@torch.no_grad()  # type: ignore[untyped-decorator]
def test_random_trees_score_alike_and_rank_alike(
    model: Any, plain: Any, lengths: list[tuple[int, list[int]]], budget: int
) -> None:
    trees = [tree(prompt, *branches, seed=i) for i, (prompt, branches) in enumerate(lengths)]
    found, expected = last_hidden(model, trees, "packed", budget), last_hidden(plain, trees, "padded", budget)
    assert_close(found, expected)
    head = torch.linspace(-1, 1, found[0].shape[1])
    for own, wanted in zip(found, expected, strict=True):
        assert (wanted @ head)[(own @ head).argsort()].diff().ge(-1e-3).all()  # in order, but for ties
    assert_close(branch_logprobs(model, trees, "packed", budget), branch_logprobs(plain, trees, "padded", budget))


@pytest.mark.parametrize(
    "trees",
    [
        pytest.param([tree(9, 12)], id="one branch"),
        pytest.param([tree(9, 1)], id="one branch of one token"),
        pytest.param([tree(1, 1, 1)], id="one token each"),
        pytest.param([tree(9, 4), tree(9, 4)], id="equal trees"),
        pytest.param([Tree([5, 6, 7], [[8, 9], [8, 9], [8]])], id="equal branches"),
        pytest.param([Tree([*range(1, 30), i], [[i, 40], [41]]) for i in range(5)], id="shared head"),
        pytest.param([Tree([*range(1, 30 + i)], [[40]]) for i in range(3)], id="a prompt begins another"),
        pytest.param([], id="none"),
    ],
)
@pytest.mark.parametrize("budget", [1, 40, 16384])
@torch.no_grad()  # type: ignore[untyped-decorator]
def test_odd_trees_score_as_in_the_plain_way(model: Any, plain: Any, trees: list[Tree], budget: int) -> None:
    for layout in LAYOUTS:
        assert_close(last_hidden(model, trees, layout, budget), plain_states(plain, trees))
        assert_close(branch_logprobs(model, trees, layout, budget), plain_logprobs(plain, trees))


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_branches_without_a_prompt_have_states_but_no_logprobs(model: Any, plain: Any) -> None:
    trees = [tree(0, 3, 5), tree(4, 2)]
    for layout in LAYOUTS:
        assert_close(last_hidden(model, trees, layout), plain_states(plain, trees))
    with pytest.raises(InputError, match="tree 0: has an empty prompt"):
        branch_logprobs(model, trees)


@pytest.mark.parametrize(
    ("bad", "said"), [(Tree([1], []), "tree 1: has no branches"), (Tree([1], [[2], []]), "tree 1, branch 1: is empty")]
)
def test_trees_with_nothing_to_score_are_refused(model: Any, bad: Tree, said: str) -> None:
    for score in (last_hidden, branch_logprobs):
        with pytest.raises(InputError, match=said):
            score(model, [tree(2, 2), bad])


def test_a_packed_row_holds_each_prompt_once_and_no_padding() -> None:
    (row,) = packed(UNEVEN, 16384)
    assert row.ids.numel() == sum(len(own.prompt) + sum(map(len, own.branches)) for own in UNEVEN)
    assert row.positions[0, :50].tolist() == list(range(50))
    assert row.positions[0, 50:58].tolist() == [50, *range(50, 57)]


def test_a_head_that_all_prompts_share_is_computed_once_a_row() -> None:
    trees = [Tree([*range(100), i], [[1], [2]]) for i in (101, 102, 103, 104)]
    (row,) = packed(trees, 16384)
    assert row.ids.numel() == 100 + 4 * 3
    first, second = packed(trees, 106)
    assert first.ids.numel() == second.ids.numel() == 100 + 2 * 3
    few = [Tree([*range(HEAD - 1), i], [[1]]) for i in (101, 102)]
    assert next(packed(few, 16384)).ids.numel() == 2 * (HEAD + 1)


def test_shared_head_leaves_a_token_of_every_prompt() -> None:
    assert shared_head([[1, 2, 3], [1, 2, 4]]) == 2
    assert shared_head([[1, 2], [1, 2, 4]]) == 1
    assert shared_head([[1], [2]]) == 0
    assert shared_head([[], [2]]) == 0


def test_rows_stay_within_the_budget() -> None:
    trees = [tree(30, *[10] * 9, seed=i) for i in range(3)]
    for budget in (60, 130, 500):
        rows = list(packed(trees, budget))
        assert max(row.ids.numel() for row in rows) <= budget
        assert sorted((place.tree, place.branch) for row in rows for place in row.places) == [
            (i, k) for i in range(3) for k in range(9)
        ]
        assert max(batch.ids.numel() for batch in padded(trees, budget)) <= budget


def dpo_gradient(model: Any, logprobs: Any) -> torch.Tensor:
    """The gradient of eq. 1 with a reference that finds all answers alike, as one vector."""
    model.zero_grad()
    chosen, rejected = torch.stack(logprobs).T
    (-torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()).backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.requires_grad])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_preference_are_those_of_the_plain_way(family: str) -> None:
    model, plain = tiny(family), tiny(family)
    pairs = [tree(40, 12, 30), tree(7, 1, 9), tree(25, 20, 3)]
    expected = dpo_gradient(plain, plain_logprobs(plain, pairs))
    for layout in LAYOUTS:
        found = dpo_gradient(model, branch_logprobs(model, pairs, layout))
        assert torch.cosine_similarity(found, expected, 0) > 0.9999
        assert float(found.norm()) == pytest.approx(float(expected.norm()), rel=1e-3)


def test_gradients_are_the_same_where_layers_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = tiny("llama"), [tree(40, 12, 30), tree(7, 1, 9)]
    expected = dpo_gradient(model, branch_logprobs(model, pairs))
    model.train()
    model.activation_checkpointing_enable()
    monkeypatch.setattr(scoring, "LOGITS", 300 * 5)
    found = dpo_gradient(model, branch_logprobs(model, pairs))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_bfloat16_scores_are_near_those_of_the_padded_way() -> None:
    exact, half = tiny("llama"), tiny("llama").to(torch.bfloat16)
    for own, wide, other in zip(
        *(branch_logprobs(*case) for case in ((half, UNEVEN), (exact, UNEVEN), (half, UNEVEN, "padded"))), strict=True
    ):
        assert (own - wide).abs().max() < 2 * (other - wide).abs().max() + 0.1 * wide.abs().max()


def test_an_adapter_in_training_scores_and_learns_alike_in_both_layouts() -> None:
    torch.manual_seed(0)
    model = get_peft_model(tiny("llama"), LoraConfig(target_modules="all-linear", init_lora_weights=False)).train()
    pairs = [tree(40, 12, 30), tree(7, 1, 9)]
    found, expected = (dpo_gradient(model, branch_logprobs(model, pairs, layout)) for layout in LAYOUTS)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.gpu
def test_kernels_of_a_gpu_score_and_learn_as_the_padded_way() -> None:
    model, pairs = tiny("llama").to("cuda", torch.bfloat16), [tree(40, 12, 30), tree(7, 1, 9)]
    packed, padded = ([own.float() for own in branch_logprobs(model, pairs, layout)] for layout in LAYOUTS)
    assert_close(packed, padded, atol=0.05 * float(torch.cat(padded).abs().max()))
    found, expected = (dpo_gradient(model, branch_logprobs(model, pairs, layout)) for layout in LAYOUTS)
    assert torch.cosine_similarity(found.float(), expected.float(), 0) > 0.99


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_logits_exist_only_for_what_predicts_a_branch(model: Any) -> None:
    rows: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda *given: rows.append(given[2].shape[0]))
    branch_logprobs(model, UNEVEN)
    hook.remove()
    assert sum(rows) == sum(len(branch) for own in UNEVEN for branch in own.branches)


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_logits_in_small_pieces_give_the_same(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = branch_logprobs(model, UNEVEN)
    monkeypatch.setattr(scoring, "LOGITS", 1)
    assert_close(branch_logprobs(model, UNEVEN), expected)


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_a_model_that_scored_packed_still_generates_as_before(model: Any, plain: Any) -> None:
    branch_logprobs(model, UNEVEN)
    ids, mask = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    found, expected = (
        each.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False) for each in (model, plain)
    )
    assert torch.equal(found, expected)


def test_what_the_packed_layout_would_get_wrong_is_refused_by_name() -> None:
    other = MistralForCausalLM(MistralConfig(**SIZES))
    window = tiny("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1)
    scaled = tiny("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})
    for model, said in ((other, "MistralModel"), (window, "Qwen2Model: .*window"), (scaled, "LlamaModel: dynamic")):
        with pytest.raises(InputError, match=f"{said}.*layout=padded"):
            branch_logprobs(model, UNEVEN)
        assert best_layout(model) == "padded"
        assert len(branch_logprobs(model, UNEVEN, "padded")) == len(UNEVEN)
    assert best_layout(tiny("qwen2")) == "packed"


def test_dropout_on_attention_is_refused_in_training() -> None:
    model = tiny("llama", attention_dropout=0.1)
    assert len(branch_logprobs(model, UNEVEN)) == len(UNEVEN)
    with pytest.raises(InputError, match=r"attention_dropout=0\.1"):
        branch_logprobs(model.train(), UNEVEN)


def varlen_by_hand(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_starts: torch.Tensor,
    key_starts: torch.Tensor,
    max_query: int,
    max_key: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """What `torch.nn.attention.varlen` documents, sequence by sequence: causal, counted from the last key."""
    assert window_size == (-1, 0)
    assert enable_gqa
    found = []
    spans = zip(query_starts[:-1], query_starts[1:], key_starts[:-1], key_starts[1:], strict=True)
    for first, last, key_first, key_last in spans:
        own, seen = int(last - first), int(key_last - key_first)
        assert 0 < own <= max_query
        assert own <= seen <= max_key
        groups = query.shape[1] // key.shape[1]
        keys, values = (each[key_first:key_last].repeat_interleave(groups, 1) for each in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query[first:last], keys) * scale
        hidden = torch.ones(own, seen, dtype=torch.bool).triu(seen - own + 1)
        found.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), values))
    return torch.cat(found)


@torch.no_grad()  # type: ignore[untyped-decorator]
def test_all_segments_at_once_score_as_one_by_one(model: Any, plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", varlen_by_hand)
    monkeypatch.setattr(attention, "_has_kernel", lambda _: True)
    assert_close(branch_logprobs(model, UNEVEN), plain_logprobs(plain, UNEVEN))
    shared = [Tree([*range(1, 30), i], [[i, 40], [41]]) for i in range(5)]
    assert_close(last_hidden(model, shared), plain_states(plain, shared))

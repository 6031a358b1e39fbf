"""Scores of branches: the hidden state at their end, or their log-probability.

With gradients where torch has them on, without under `torch.no_grad` or `torch.inference_mode`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from rlhi.engine import tally
from rlhi.progress import bar
from rlhi.trees import attention
from rlhi.trees.batch import Batch, Place, padded
from rlhi.trees.packing import packed
from rlhi.trees.tree import Layout, Tree, check

BUDGET = 16384  # tokens of a row
LOGITS = 2**25  # numbers at a time: 128 MiB in float32


def best_layout(model: Any) -> Layout:
    """Packed, for a model that it is proven for."""
    return "padded" if attention.refusal(model.get_decoder()) else "packed"


def last_hidden(
    model: Any, trees: Sequence[Tree], layout: Layout = "packed", budget: int = BUDGET
) -> list[torch.Tensor]:
    """For each tree the final hidden states at the last tokens of its branches, (branches, size): for scalar heads.

    The head of ``model``, where it has one, is not computed.

    Raises:
        InputError: an empty branch, or a class of model that the packed layout does not know.
    """
    check(trees, prompts=False)
    return _listed(trees, _by_tree(trees, _ends(_computed(model, trees, layout, budget))))


def branch_logprobs(
    model: Any, trees: Sequence[Tree], layout: Layout = "packed", budget: int = BUDGET, what: str = "scoring"
) -> list[torch.Tensor]:
    """For each tree the log-probabilities of its branches behind its prompt, (branches,), in nats: sums over tokens.

    ``model`` is a causal language model. Logits exist for the tokens that predict a branch's, `LOGITS` of them at a
    time; in a backward pass they are computed again.

    Raises:
        InputError: an empty branch or prompt, or a class of model that the packed layout does not know.
    """
    return _listed(trees, stream_logprobs(model, trees, layout, budget), what)


def stream_logprobs(
    model: Any, trees: Sequence[Tree], layout: Layout = "packed", budget: int = BUDGET
) -> Iterator[tuple[int, torch.Tensor]]:
    """The same tree by tree, as soon as one is done, with its number."""
    check(trees, prompts=True)
    yield from _by_tree(trees, _sums(model, trees, _computed(model, without_last(trees), layout, budget)))


Computed = Iterator[tuple[torch.Tensor, Sequence[Place]]]
Scored = Iterator[tuple[Place, torch.Tensor]]


def _computed(model: Any, trees: Sequence[Tree], layout: Layout, budget: int) -> Computed:
    """Final hidden states, (tokens, size), batch after batch, and where the branches are in them."""
    body = model.get_decoder()
    if layout == "packed":
        attention.use(body)
    for batch in (packed if layout == "packed" else padded)(trees, budget):
        hidden = body(**inputs_of(batch, body.device), use_cache=False).last_hidden_state
        _count(trees, batch)
        yield hidden.flatten(0, 1), batch.places


def inputs_of(batch: Batch, device: torch.device) -> dict[str, Any]:
    """What transformers' models take of a batch."""
    kept: dict[str, Any] = {"attention_mask": None if batch.mask is None else batch.mask.to(device)}
    if batch.segments is not None:
        # transformers leaves a mask of four dimensions alone; without one it would make its own
        kept = {"attention_mask": torch.empty(1, 1, 0, 0, device=device), "segments": batch.segments}
    return {"input_ids": batch.ids.to(device), "position_ids": batch.positions.to(device), **kept}


def _count(trees: Sequence[Tree], batch: Batch) -> None:
    """Prompt tokens of the trees that begin in ``batch``, and how many fewer than these were computed."""
    prompts = sum(len(trees[place.tree].prompt) for place in batch.places if place.branch == 0)
    tally.add("prompt_tokens", prompts)
    if batch.segments is not None:
        branches = sum(place.stop - place.start for place in batch.places)
        tally.add("cached_tokens", prompts - (batch.ids.numel() - branches))


def _ends(computed: Computed) -> Scored:
    for hidden, places in computed:
        yield from zip(places, hidden[_at([place.stop - 1 for place in places], hidden)], strict=True)


def _sums(model: Any, trees: Sequence[Tree], computed: Computed) -> Scored:
    for hidden, places in computed:
        reading = read(places, trees)
        each = token_logprobs(model, hidden[_at(reading.tokens, hidden)], _at(reading.targets, hidden))
        yield from zip(places, (part.sum() for part in each.split(reading.lengths)), strict=True)


@dataclass(frozen=True, slots=True)
class Reading:
    """Which ``tokens`` of a batch predict which ``targets``; one branch after the other, of ``lengths`` tokens each."""

    tokens: list[int]
    targets: list[int]
    lengths: list[int]


def read(places: Sequence[Place], trees: Sequence[Tree]) -> Reading:
    """How the branches of ``trees``, of which all but the last token lie at ``places``, are predicted."""
    return Reading(
        [i for place in places for i in (place.before, *range(place.start, place.stop))],
        [token for place in places for token in trees[place.tree].branches[place.branch]],
        [place.stop - place.start + 1 for place in places],
    )


def without_last(trees: Sequence[Tree]) -> list[Tree]:
    """``trees`` as they are fed to a model: the last token of a branch is predicted, and predicts nothing."""
    return [Tree(tree.prompt, [branch[:-1] for branch in tree.branches]) for tree in trees]


def _by_tree(trees: Sequence[Tree], scored: Scored) -> Iterator[tuple[int, torch.Tensor]]:
    """Trees with the scores of all branches, as soon as the last of them is there."""
    under_way: dict[int, dict[int, torch.Tensor]] = {}
    for place, score in scored:
        own = under_way.setdefault(place.tree, {})
        own[place.branch] = score
        if len(own) == len(trees[place.tree].branches):
            del under_way[place.tree]
            yield place.tree, torch.stack([own[k] for k in range(len(own))])


def _listed(
    trees: Sequence[Tree], scored: Iterator[tuple[int, torch.Tensor]], what: str = "scoring"
) -> list[torch.Tensor]:
    with tally.timed(), bar(what, len(trees)) as shown:
        found = {}
        for i, scores in scored:
            found[i] = scores
            shown.update()
    return [found[i] for i in range(len(trees))]


def _at(numbers: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(numbers, device=like.device)


def token_logprobs(model: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target token, (tokens,), given the hidden state that predicts it."""
    step = max(1, LOGITS // model.config.vocab_size)
    head = model.get_output_embeddings()
    parts = []
    for states, own in zip(hidden.split(step), targets.split(step), strict=True):
        if torch.is_grad_enabled():
            parts.append(checkpoint(_chunk, head, states, own, use_reentrant=False))
        else:
            parts.append(_chunk(head, states, own))
    return torch.cat(parts)


def _chunk(head: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = head(hidden).float()
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)

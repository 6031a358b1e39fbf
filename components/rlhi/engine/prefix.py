"""Prompts, ready to be answered: the beginning that they share computed once, each prompt once for all its answers.

Three levels: the head that all prompts of a call share (instructions, few-shot examples), the rest of each prompt, and
its answers, which are drawn from here. Keys and values of one level are kept for the next. What is only scored, and not
drawn, needs no cache: see `rlhi.trees`.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlhi.engine import tally
from rlhi.engine.models import Policy
from rlhi.trees import shared_head


@dataclass
class Prefilled:
    """A batch of prompts in a model's cache. ``mask`` is (batch, cached) with 0 on padding; ``length`` counts tokens.

    ``logits`` (batch, vocabulary) predict the first token after each prompt.
    """

    cache: Any
    mask: torch.Tensor
    length: torch.Tensor
    logits: torch.Tensor

    def select(self, rows: torch.Tensor) -> "Prefilled":
        """The prompts at ``rows``, which may repeat, as a batch of their own; this one stays as it is."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(rows)
        return Prefilled(cache, self.mask[rows], self.length[rows], self.logits[rows])


@torch.inference_mode()  # type: ignore[untyped-decorator]
def prefill(
    policy: Policy, prompts: Sequence[list[int]], sequences: Sequence[int], rows: int
) -> Iterator[tuple[list[int], Prefilled]]:
    """Batches of prompts of similar length, with their indices, computed behind their shared head.

    ``sequences`` says how many continuations each prompt will have; a batch has at most ``rows``, or one prompt.
    """
    head = shared_head(prompts)
    warmed = _warm(policy, prompts[0][:head]) if head else None
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i]))
    tally.add("cached_tokens", -head)  # the head itself is computed once
    for batch in _batches(order, sequences, rows):
        tally.add("prompt_tokens", sum(len(prompts[i]) for i in batch))
        tally.add("cached_tokens", head * len(batch))
        yield batch, _extend(policy, warmed, head, [prompts[i][head:] for i in batch])


def _batches(order: Sequence[int], sequences: Sequence[int], rows: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for i in order:
        if batch and sum(sequences[k] for k in batch) + sequences[i] > rows:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _warm(policy: Policy, head: Sequence[int]) -> Any:
    ids = torch.tensor([head], device=policy.device)
    return policy.model(ids, use_cache=True, logits_to_keep=1).past_key_values


def _extend(policy: Policy, warmed: Any, head: int, tails: list[Sequence[int]]) -> Prefilled:
    width = max(len(tail) for tail in tails)
    ids = torch.tensor([[policy.renderer.end] * (width - len(tail)) + list(tail) for tail in tails])
    mask = torch.tensor([[1] * head + [0] * (width - len(tail)) + [1] * len(tail) for tail in tails])
    cache = copy.deepcopy(warmed)
    if cache is not None:
        cache.batch_repeat_interleave(len(tails))
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, head:]
    out = policy.model(
        ids.to(policy.device),
        attention_mask=mask.to(policy.device),
        position_ids=positions.to(policy.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return Prefilled(
        out.past_key_values, mask.to(policy.device), mask.sum(1).to(policy.device), out.logits[:, -1].float()
    )

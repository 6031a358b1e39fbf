"""Computes with prompts that share a beginning: the beginning once, each prompt once, each continuation once.

Three levels: the head that all prompts of a call share (instructions, few-shot examples), the rest of each prompt, and
the continuations of each prompt. Keys and values of one level are kept for the next, so that a judge's instructions or
a long context are not computed again for every choice.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlhi.engine.models import Policy
from rlhi.progress import bar

TOKENS = 2048  # of continuations computed at a time: each has a row of logits as wide as the vocabulary


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


def shared_head(prompts: Sequence[list[int]]) -> int:
    """Tokens that all prompts begin with; at least one token of each prompt is left over."""
    low, high = min(prompts), max(prompts)
    limit = min(len(prompt) for prompt in prompts) - 1
    return next((i for i in range(limit) if low[i] != high[i]), limit)


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
    for batch in _batches(order, sequences, rows):
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


@torch.inference_mode()  # type: ignore[untyped-decorator]
def continuation_logprobs(
    policy: Policy,
    prompts: Sequence[list[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    rows: int,
    what: str,
) -> list[list[float]]:
    """Log-probability in nats of each continuation of each prompt: the sum over its tokens, none of them empty."""
    found: list[list[float]] = [[] for _ in prompts]
    if not prompts:
        return found
    most = max(len(group) for group in continuations)
    with bar(what, len(prompts)) as shown:
        for batch, prefilled in prefill(policy, prompts, [most] * len(prompts), rows):
            flat = [(row, tokens) for row, i in enumerate(batch) for tokens in continuations[i]]
            sums = [0.0] * len(flat)
            for part in _parts([len(tokens) for _, tokens in flat], rows):
                parents = prefilled.select(torch.tensor([flat[i][0] for i in part]))
                for i, total in zip(part, _score(policy, parents, [flat[i][1] for i in part]), strict=True):
                    sums[i] = total
            for (row, _), total in zip(flat, sums, strict=True):
                found[batch[row]].append(total)
            shown.update(len(batch))
    return found


def _parts(lengths: Sequence[int], rows: int) -> Iterator[list[int]]:
    """Indices in batches of similar length: at most ``rows`` of them, and `TOKENS` tokens with the padding."""
    part: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if part and (len(part) == rows or lengths[i] * (len(part) + 1) > TOKENS):
            yield part
            part = []
        part.append(i)
    if part:
        yield part


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


def _score(policy: Policy, prompts: Prefilled, continuations: list[Sequence[int]]) -> list[float]:
    """Right-padded continuations behind their prompts; the last token of each is predicted but never fed."""
    device = policy.device
    width = max(len(c) for c in continuations)
    targets = torch.tensor([list(c) + [0] * (width - len(c)) for c in continuations], device=device)
    valid = torch.tensor([[1] * len(c) + [0] * (width - len(c)) for c in continuations], device=device)
    first = prompts.logits.log_softmax(-1).gather(1, targets[:, :1])
    rest = torch.zeros_like(targets[:, 1:], dtype=first.dtype)
    if width > 1:
        out = policy.model(
            targets[:, :-1],
            attention_mask=torch.cat([prompts.mask, valid[:, :-1]], 1),
            position_ids=prompts.length[:, None] + torch.arange(width - 1, device=device)[None],
            past_key_values=prompts.cache,
            use_cache=True,
        )
        logits = out.logits.float()
        rest = logits.gather(2, targets[:, 1:, None])[..., 0] - logits.logsumexp(-1)
    sums: list[float] = (torch.cat([first, rest], 1) * valid).sum(1).tolist()
    return sums

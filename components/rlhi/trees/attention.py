"""Attention over a packed row, as an attention function of transformers: each segment sees its context and itself.

`use` makes it a model's attention for good: a call without segments goes to SDPA as before, so that the same model
generates, and what is recomputed in a backward pass (gradient checkpointing) finds it in place.

Each segment is one call of SDPA. Where `torch.nn.attention.varlen` has kernels, for 16-bit numbers on a GPU, all
segments are one call.
"""

from inspect import signature
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rlhi.errors import InputError
from rlhi.trees.segments import Segment, Segments

NAME = "prefix-tree"
PROVEN = ("LlamaModel", "Qwen2Model", "Qwen3Model", "SmolLM3Model")  # SmolLM and SmolLM2 are Llamas
SHARES_KEYS = "enable_gqa" in signature(varlen_attn).parameters  # torch 2.12; 2.11 wants a key for each head
AMPERE = (8, 0)  # the compute capability that varlen's kernels need


def use(body: Any) -> None:
    """Makes ``body``'s attention the one of this module.

    Raises:
        InputError: `refusal` says why not.
    """
    if reason := refusal(body):
        raise InputError(f"{reason}; set layout=padded")
    if body.config._attn_implementation != NAME:
        body.set_attn_implementation(NAME)


def refusal(body: Any) -> str | None:
    """Why ``body`` would be computed wrong: its class is not proven, or its layers do more than this module does."""
    name, config = type(body).__name__, body.config
    if name not in PROVEN:
        return f"{name}: the packed layout is proven for {', '.join(PROVEN)} only"
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return f"{name}: layers with a sliding window are not for the packed layout"
    if (kind := (config.rope_parameters or {}).get("rope_type")) in ("dynamic", "longrope"):
        return f"{name}: {kind} positions hang on the longest text of a batch"
    return None


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Segments | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function: (1, heads, tokens, size) in, (1, tokens, heads, size) out.

    Raises:
        InputError: dropout on attention, which is not the same where branches share a prompt.
    """
    if segments is None:
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **given)
        return found
    if given.get("dropout"):
        raise InputError(f"{type(module).__name__}: attention_dropout={given['dropout']}; set it to 0 or layout=padded")
    query, key, value = _cast(query, key, value)
    kernel = at_once if _has_kernel(query) else one_by_one
    return kernel(query, key, value, segments, given["scaling"]), None


def _cast(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """As autocast, which knows SDPA and not the kernels of varlen, would cast: positions make float32 of 16 bits."""
    device = tensors[0].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensors[-1].dtype
    return [tensor.to(dtype) for tensor in tensors]


def _has_kernel(query: torch.Tensor) -> bool:
    half = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and half and torch.cuda.get_device_capability(query.device) >= AMPERE


def one_by_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, scale: float
) -> torch.Tensor:
    """One call of SDPA for each segment; heads that share keys are not written out."""
    parts = [
        scaled_dot_product_attention(
            query[:, :, each.start : each.stop],
            _seen(key, each),
            _seen(value, each),
            # SDPA's own causal flag counts from the first key, right only where there is no context
            attn_mask=segments.mask(each, query) if each.context else None,
            is_causal=not each.context,
            scale=scale,
            enable_gqa=True,
        )
        for each in segments.each
    ]
    return torch.cat(parts, 2).transpose(1, 2).contiguous()


def _seen(tensor: torch.Tensor, segment: Segment) -> torch.Tensor:
    return torch.cat([tensor[:, :, start:stop] for start, stop in segment.spans], 2)


def at_once(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, scale: float
) -> torch.Tensor:
    """One call for all segments; keys and values of a context are written out for each segment that sees it."""
    index = segments.index(query.device)
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if not SHARES_KEYS:
        keys, values = (each.repeat_interleave(query.shape[1] // key.shape[1], 1) for each in (keys, values))
    found: torch.Tensor = varlen_attn(
        queries,
        keys[index.seen],
        values[index.seen],
        index.own_starts,
        index.seen_starts,
        index.longest_own,
        index.longest_seen,
        scale=scale,
        window_size=(-1, 0),  # causal, counted from the last key
        **({"enable_gqa": True} if SHARES_KEYS else {}),
    )
    return found[None]


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)

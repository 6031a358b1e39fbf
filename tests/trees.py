"""Small random models of the families that the packed layout is proven for, random trees, and the plain way."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config, SmolLM3Config

from rlhi.trees import Tree

VOCABULARY = 300
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,  # far from uniform, so that a wrong position or mask shows
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
FAMILIES: dict[str, Callable[..., Any]] = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "smollm3": SmolLM3Config,
}


def tiny(family: str, **more: Any) -> Any:
    """A causal language model with random weights, the same every time."""
    torch.manual_seed(0)
    own = {"head_dim": 8} if family == "qwen3" else {}
    return AutoModelForCausalLM.from_config(FAMILIES[family](**SIZES, **own, **more)).eval()


def tree(prompt: int, *branches: int, seed: int = 0) -> Tree:
    """Random tokens of these lengths."""
    drawn = random.Random(f"{seed} {prompt} {branches}")
    ids = [[drawn.randrange(1, VOCABULARY) for _ in range(length)] for length in (prompt, *branches)]
    return Tree(ids[0], ids[1:])


def plain_states(model: Any, trees: Sequence[Tree]) -> list[torch.Tensor]:
    """The last hidden state of each branch: one sequence at a time, without mask, positions or padding."""
    ends = [[model.model(_ids(own, branch)).last_hidden_state[0, -1] for branch in own.branches] for own in trees]
    return [torch.stack(own) for own in ends]


def plain_logprobs(model: Any, trees: Sequence[Tree]) -> list[torch.Tensor]:
    """The log-probability of each branch, in the same way."""
    return [torch.stack([_logprob(model, own, branch) for branch in own.branches]) for own in trees]


def _logprob(model: Any, own: Tree, branch: Sequence[int]) -> torch.Tensor:
    logits = model(_ids(own, branch)).logits[0, len(own.prompt) - 1 : -1].float().log_softmax(-1)
    return logits.gather(1, torch.tensor(branch)[:, None]).sum()


def _ids(own: Tree, branch: Sequence[int]) -> torch.Tensor:
    return torch.tensor([[*own.prompt, *branch]])

"""The forward of a packed row, as a way of calling a causal language model.

It must be the model's own forward: DistributedDataParallel and FSDP do their part when the model is called, PEFT passes
the call on to the model below the adapter. So `teach` gives the model a second way of being called; without ``reading``
it stays what it was.
"""

import functools
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlhi.dpo.tokens import TokenizedPair
from rlhi.errors import InputError
from rlhi.trees import Tree, attention
from rlhi.trees.packing import one_row
from rlhi.trees.scoring import inputs_of, read, token_logprobs, without_last


def teach(model: Any) -> None:
    """Lets ``model``, a causal language model without its wrappers, be called with a `PackedRow`'s inputs.

    The call gives the log-probability of each token of the answers, (tokens,), in nats, with gradients.

    Raises:
        InputError: as `check`.
    """
    check(model)
    attention.use(model.get_decoder())
    usual = model.forward

    @functools.wraps(type(model).forward)  # generate looks at the signature
    def forward(
        self: Any, *given: Any, reading: torch.Tensor | None = None, targets: torch.Tensor | None = None, **named: Any
    ) -> Any:
        if reading is None or targets is None:
            return usual(*given, **named)
        body = {name: named[name] for name in ("input_ids", "position_ids", "attention_mask", "segments")}
        hidden = self.get_decoder()(**body, use_cache=False).last_hidden_state[0]
        return token_logprobs(self, hidden[reading], targets)

    model.forward = types.MethodType(forward, model)


def check(model: Any) -> None:
    """Refuses a model that the packed layout is not proven for.

    Raises:
        InputError: it is not.
    """
    if reason := attention.refusal(model.get_decoder()):
        raise InputError(f"{reason}; set dpo.packing=off")


@dataclass(frozen=True)
class PackedRow:
    """Pairs as one row of tokens. ``lengths`` are those of the answers: chosen and rejected of each pair in turn."""

    inputs: dict[str, Any]
    lengths: list[int]
    tokens: int

    def by_answer(self, logprobs: torch.Tensor) -> torch.Tensor:
        """What a call gave, (tokens,), as TRL has it: all chosen answers, then all rejected, (2 pairs, longest)."""
        parts = logprobs.split(self.lengths)
        return torch.nn.utils.rnn.pad_sequence([*parts[0::2], *parts[1::2]], batch_first=True)

    def ends(self, logprobs: torch.Tensor) -> float:
        """Of `by_answer`, the sum over what ends the chosen answers, in nats."""
        last = torch.tensor(self.lengths[0::2], device=logprobs.device) - 1
        return float(logprobs.detach()[: len(last)].gather(1, last[:, None]).sum())

    def mask(self, device: torch.device) -> torch.Tensor:
        """Where the tokens of the answers are in that, as 0 and 1."""
        lengths = torch.tensor([*self.lengths[0::2], *self.lengths[1::2]], device=device)
        return (torch.arange(max(self.lengths), device=device) < lengths[:, None]).long()


def pack(pairs: Sequence[TokenizedPair], device: torch.device) -> PackedRow:
    """``pairs`` as one row."""
    trees = [Tree(pair.prompt_ids, [pair.chosen_ids, pair.rejected_ids]) for pair in pairs]
    batch = one_row(without_last(trees))
    reading = read(batch.places, trees)
    inputs = {
        **inputs_of(batch, device),
        "reading": torch.tensor(reading.tokens, device=device),
        "targets": torch.tensor(reading.targets, device=device),
    }
    return PackedRow(inputs, reading.lengths, batch.ids.numel())

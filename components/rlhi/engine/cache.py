"""A key-value cache with room to grow.

transformers' dynamic cache copies every earlier key and value for each new token; on a CPU that takes half of the time
of decoding a batch. Here a new token is written in place, and the room doubles when it is used up.
"""

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

ROOM = 64


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """transformers' dynamic layer, (batch, heads, tokens, size), as a view of buffers that are longer."""

    buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the new keys and values behind the old ones; gives all of them."""
        start = self.get_seq_length()
        if start == 0:
            found: tuple[torch.Tensor, torch.Tensor] = super().update(key_states, value_states)
            return found
        end = start + key_states.shape[-2]
        keys, values = self._with_room(end)
        keys[..., start:end, :] = key_states
        values[..., start:end, :] = value_states
        self.keys, self.values = keys[..., :end, :], values[..., :end, :]
        return self.keys, self.values

    def _with_room(self, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The buffers; new ones where there are none, they are full, or the rows have changed since."""
        held = self.buffers
        if held is not None and held[0].shape[-2] >= end and held[0].data_ptr() == self.keys.data_ptr():
            return held
        self.buffers = tuple(_longer(tensor, end + max(ROOM, end // 2)) for tensor in (self.keys, self.values))
        return self.buffers


def with_room(cache: Any) -> Any:
    """``cache`` with its plain dynamic layers made roomy; layers of another kind stay."""
    for place, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[place] = _roomy(layer)
    return cache


def _roomy(layer: DynamicLayer) -> RoomyLayer:
    made = RoomyLayer()
    made.lazy_initialization(layer.keys, layer.values)
    made.keys, made.values = layer.keys, layer.values
    return made


def _longer(tensor: torch.Tensor, length: int) -> torch.Tensor:
    made = tensor.new_empty((*tensor.shape[:-2], length, tensor.shape[-1]))
    made[..., : tensor.shape[-2], :] = tensor
    return made

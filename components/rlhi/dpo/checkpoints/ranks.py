"""What the processes of one training tell each other; each of these is called by all of them, or by the only one."""

import os
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def number(variable: str, default: int) -> int:
    """What torchrun has set in the environment."""
    return int(os.environ.get(variable, default))


def several() -> bool:
    """Whether there are others."""
    return bool(dist.is_available() and dist.is_initialized())


def barrier() -> None:
    """Waits until all are here."""
    if several():
        dist.barrier()


def from_first(value: T) -> T:
    """What the first of all has."""
    values = [value]
    if several():
        dist.broadcast_object_list(values, src=0)
    return values[0]


def from_leader(value: T) -> T:
    """What the first of this node has."""
    if not several():
        return value
    said: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(said, (number("GROUP_RANK", 0), number("LOCAL_RANK", 0), value))
    found: T = next(each for *place, each in said if place == [number("GROUP_RANK", 0), 0])
    return found


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether it is so for one of them."""
    if not several():
        return flag
    said = torch.tensor(float(flag), device=device)
    dist.all_reduce(said, op=dist.ReduceOp.MAX)
    return bool(said.item())


def everywhere(flag: bool) -> bool:
    """Whether it is so for all of them."""
    if not several():
        return flag
    said = [flag] * dist.get_world_size()
    dist.all_gather_object(said, flag)
    return all(said)

"""Which seed a sample has, and which samples are one request: the same for a server and for vLLM in process."""

import hashlib
from collections.abc import Sequence

SEEDS = 2**31 - 2**20  # a signed 32-bit number on every server, with room for the number of the sample


def seed_of(seed: int, key: str, sample: int) -> int:
    """The seed of one sample, from seed, row and number of the sample alone.

    Sample k has the row's seed plus k, as vLLM itself counts on within one request for n samples: so a sample is the
    same whether it was asked for alone or among others.
    """
    row = int.from_bytes(hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8], "big") % SEEDS
    return row + sample


def runs(samples: Sequence[int], most: int) -> list[range]:
    """The numbers of the samples as runs without gaps, none longer than ``most``: each is one request."""
    found: list[range] = []
    for sample in sorted(set(samples)):
        if found and found[-1].stop == sample and len(found[-1]) < most:
            found[-1] = range(found[-1].start, sample + 1)
        else:
            found.append(range(sample, sample + 1))
    return found

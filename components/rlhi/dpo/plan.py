"""Which pairs are computed when, and where: settled before training, from lengths and seed alone.

Every step takes the same number of pairs, whatever the number of processes. A step's pairs are packed into rows of a
token budget, and the rows dealt out so that all processes have as many, of about the same size: sharded models and
averaged gradients need that every process takes part in every row.
"""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import islice

Row = list[int]  # numbers of pairs
Step = list[list[Row]]  # for each process its rows; one without pairs only keeps time with the others


def batches(pairs: int, batch_size: int, epochs: float, seed: int) -> list[list[int]]:
    """The pairs of every step. Each pass over them is shuffled anew.

    All steps take ``batch_size`` pairs, or all where there are fewer: the last is filled up from a further pass.
    """
    size = min(batch_size, pairs)
    order = _passes(pairs, seed)
    return [list(islice(order, size)) for _ in range(max(1, math.ceil(round(epochs * pairs, 6) / size)))]


def _passes(pairs: int, seed: int) -> Iterator[int]:
    number = 0
    while True:
        order = list(range(pairs))
        random.Random(f"{seed} pass {number}").shuffle(order)
        yield from order
        number += 1


def deal(batch: Sequence[int], lengths: Sequence[int], budget: int, processes: int) -> Step:
    """``batch`` in rows of at most ``budget`` tokens, as many for each of ``processes``. A longer pair is a row."""
    by_length = sorted(batch, key=lambda pair: (-lengths[pair], pair))
    count = len(_filled(by_length, lengths, budget))
    while True:
        count = math.ceil(count / processes) * processes
        rows = _spread(by_length, lengths, count)
        if count >= len(batch) or all(len(row) < 2 or sum(lengths[i] for i in row) <= budget for row in rows):
            break
        count += 1
    rows.sort(key=lambda row: -sum(lengths[i] for i in row))
    return [rows[start::processes] for start in range(processes)]


def _filled(by_length: Sequence[int], lengths: Sequence[int], budget: int) -> list[int]:
    """Tokens of the rows when each pair goes into the first that has room: about as few as can be."""
    rows: list[int] = []
    for pair in by_length:
        need = lengths[pair]
        place = next((i for i, size in enumerate(rows) if size + need <= budget), None)
        if place is None:
            rows.append(need)
        else:
            rows[place] += need
    return rows


def _spread(by_length: Sequence[int], lengths: Sequence[int], count: int) -> list[Row]:
    """``count`` rows of about the same size: each pair goes into the one that is smallest by then."""
    rows: list[Row] = [[] for _ in range(count)]
    sizes = [0] * count
    for pair in by_length:
        smallest = sizes.index(min(sizes))
        rows[smallest].append(pair)
        sizes[smallest] += lengths[pair]
    return rows

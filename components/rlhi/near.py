"""Near duplicates: texts that share most of their runs of five words, found by MinHash.

The signatures come from the library rensa. The share of values in which two agree estimates the Jaccard similarity of
the texts' five-word runs (Broder 1997). Among many texts only those are compared that agree in all rows of a band.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from rensa import RMinHash

PERMUTATIONS = 128
BANDS = 16  # of eight values: two texts of similarity 0.8 meet in a band with probability 0.95
RUN = 5


def near_duplicates(texts: Iterable[str], similarity: float, seed: int) -> np.ndarray:
    """True for each text (n) that an earlier one, itself no duplicate, resembles by at least ``similarity``."""
    signatures = np.array([signature(text, seed) for text in texts], np.uint32).reshape(-1, PERMUTATIONS)
    repeats = np.zeros(len(signatures), bool)
    for place, earlier in _meetings(signatures):
        if not repeats[place] and not repeats[earlier]:
            repeats[place] = np.mean(signatures[place] == signatures[earlier]) >= similarity
    return repeats


def signature(text: str, seed: int) -> list[int]:
    """The MinHash signature of a text's runs of five words; a shorter text is one run."""
    words = text.lower().split()
    made = RMinHash(num_perm=PERMUTATIONS, seed=seed)
    made.update([" ".join(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1))])
    found: list[int] = made.digest()
    return found


def _meetings(signatures: np.ndarray) -> Sequence[tuple[int, int]]:
    """Pairs (later, earlier) that agree in a band, in order: each of a group with the one before and with the first."""
    width = PERMUTATIONS // BANDS
    odd = 2 * np.random.default_rng(0).integers(2**62, size=width, dtype=np.uint64) + 1
    found: set[tuple[int, int]] = set()
    for start in range(0, PERMUTATIONS, width):
        band = (signatures[:, start : start + width].astype(np.uint64) * odd).sum(axis=1)  # modulo 2 to the 64
        order = np.argsort(band, kind="stable")
        new = np.append(True, band[order][1:] != band[order][:-1])[: len(band)]
        first = order[np.flatnonzero(new)[np.cumsum(new) - 1]] if len(band) else order
        met = np.flatnonzero(~new)
        found |= set(zip(order[met].tolist(), first[met].tolist(), strict=True))
        found |= set(zip(order[met].tolist(), order[met - 1].tolist(), strict=True))
    return sorted(found)

"""How different the contexts of a dataset are: the average pairwise cosine distance (2.2), and a map of them (App. B).

The map places each context beside those that mean the same (t-SNE); distances across it mean little. Two principal
components would hold a tenth of what the embeddings tell apart, mostly what separates the datasets: the most diverse of
them then looks like the smallest.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhi.analyze.datasets import Dataset
from rlhi.analyze.embeddings import Embedded
from rlhi.analyze.estimates import Bootstrap

FEW = 12  # points under which t-SNE has no neighbourhoods to keep: principal components then
PERPLEXITY = 30
SAME = 1e-5  # between vectors of one text in two batches

# 2.2 of the paper: 500 contexts each, by text-embedding-3-small
PAPER = {"WildChat": 0.865, "HelpSteer2": 0.848, "HH-RLHF": 0.751}


@dataclass(frozen=True, slots=True)
class Diversity:
    """The average distance between two contexts of a dataset, in [0, 2], with its 95% interval.

    ``groups`` are users, or rows where users are not known; ``cut`` counts contexts longer than the model reads.
    """

    name: str
    distance: float | None
    low: float | None
    high: float | None
    contexts: int
    of: int
    groups: int
    by_user: bool
    cut: int


def measure(dataset: Dataset, embedded: Embedded, bootstrap: Bootstrap) -> Diversity:
    """The figures of one dataset."""
    groups = [context.group for context in dataset.contexts]
    distance, bounds = mean_distance(embedded.vectors, groups, bootstrap)
    low, high = bounds or (None, None)
    return Diversity(
        name=dataset.name,
        distance=distance,
        low=low,
        high=high,
        contexts=len(groups),
        of=dataset.of,
        groups=len(set(groups)),
        by_user=dataset.by_user,
        cut=sum(embedded.cut),
    )


def mean_distance(
    vectors: np.ndarray, groups: Sequence[str], bootstrap: Bootstrap
) -> tuple[float | None, tuple[float, float] | None]:
    """The mean of 1 - cosine over all pairs of rows of ``vectors``, which have length one, and its 95% interval.

    A resample draws as many groups as there are, with replacement. With w_g how often group g was drawn, a pair across
    groups g and h counts w_g w_h times and a pair within g counts w_g times: the pairs between two copies of a group
    are left out, since they would compare rows with themselves. No value for fewer than two rows, no interval for
    fewer than two groups.
    """
    if len(vectors) < 2:
        return None, None
    sums, counts = _by_group(vectors.astype(np.float64), groups)
    across = np.outer(counts, counts) - sums @ sums.T
    pairs = np.outer(counts, counts).astype(np.float64)
    within = (counts * counts - np.einsum("gd,gd->g", sums, sums)) / 2
    within_pairs = counts * (counts - 1) / 2
    np.fill_diagonal(across, 0)
    np.fill_diagonal(pairs, 0)

    def mean(weights: np.ndarray) -> np.ndarray:
        total = np.einsum("rg,rg->r", weights @ across, weights) / 2 + weights @ within
        number = np.einsum("rg,rg->r", weights @ pairs, weights) / 2 + weights @ within_pairs
        found: np.ndarray = total[number > 0] / number[number > 0]
        return found

    value = float(mean(np.ones((1, len(counts))))[0])
    if len(counts) < 2:
        return value, None
    drawn = np.random.default_rng(bootstrap.seed).multinomial(
        len(counts), np.full(len(counts), 1 / len(counts)), size=bootstrap.resamples
    )
    low, high = np.quantile(mean(drawn.astype(np.float64)), [0.025, 0.975])
    return value, (float(low), float(high))


def _by_group(vectors: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The sum of each group's vectors (groups, size), and how many there are."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows[group].append(row)
    counts = np.array([len(own) for own in rows.values()], np.float64)
    return np.stack([vectors[own].sum(0) for own in rows.values()]), counts


def on_a_map(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Each row's place (rows, 2): neighbours by cosine stay neighbours."""
    if len(vectors) < 2:
        return np.zeros((len(vectors), 2))
    if len(vectors) < FEW or np.ptp(vectors, axis=0).max() < SAME:
        return _principal(vectors)
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    found: np.ndarray = TSNE(perplexity=perplexity, init="pca", metric="cosine", random_state=seed).fit_transform(
        vectors
    )
    return found


def _principal(vectors: np.ndarray) -> np.ndarray:
    centred = vectors - vectors.mean(0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    placed = np.zeros((len(vectors), 2))
    placed[:, : min(2, len(scale))] = (left * scale)[:, :2]
    return placed

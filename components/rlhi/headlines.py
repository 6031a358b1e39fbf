"""What tells one run of a pipeline from another, out of all that its stages measured: for MLflow's charts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rlhi.engine import tally
from rlhi.manifest import Manifest
from rlhi.runs import Point

HEADLINES = {"evaluate": "win_rate/", "benchmark": "", "dpo": ""}  # by stage, how the names of its metrics begin


def headlines(manifests: Sequence[Manifest]) -> list[Point]:
    """What evaluation and training measured, and rows kept per stage; rounds are the steps of a curve.

    Without what qualifies a figure, such as its interval and its parts: that is with its stage, and here MLflow would
    chart it all. Of one round, the step is 0, which MLflow draws as bars.
    """
    ran = list(rounds(manifests))
    times = Counter(made.stage for made, _ in ran)
    steps = [(made, turn if times[made.stage] > 1 else 0) for made, turn in ran]
    figures = [
        (f"{stage}.{name}", made.metrics[name], step)
        for stage, first in HEADLINES.items()
        for made, step in steps
        if made.stage == stage
        for name in _figures(made.metrics)
        if name.startswith(first)
    ]
    return [*figures, *((f"kept.{made.stage}", made.kept, step) for made, step in steps)]


def _figures(metrics: Mapping[str, float]) -> list[str]:
    """What is neither of how models were asked, nor says something of another figure, whose name it goes on from."""
    own = [name for name in metrics if not name.startswith(tally.PREFIXES)]
    return [name for name in own if not any(name.startswith(f"{other}/") for other in own)]


def rounds(manifests: Sequence[Manifest]) -> Iterator[tuple[Manifest, int]]:
    """Each manifest, and the how-manieth of its stage it is, from 1."""
    seen: Counter[str] = Counter()
    for made in manifests:
        seen[made.stage] += 1
        yield made, seen[made.stage]

"""An experiment put together: every arm with what it is, what was measured of it, and how it differs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlhi.analyze.estimates import Bootstrap
from rlhi.benchmark.opponents import FORMATS
from rlhi.comparison import arms, benchmarks
from rlhi.comparison.arms import Arm, Given
from rlhi.comparison.benchmarks import Answered
from rlhi.comparison.beside import Seen
from rlhi.comparison.compare import Comparison, compare
from rlhi.comparison.config import ComparisonConfig


@dataclass(frozen=True)
class Experiment:
    """All arms in order; ``found`` are those that were evaluated. One of them is the ``baseline``.

    ``otherwise`` are arms whose AlpacaEval or Arena-Hard another judge judged, or against another opponent, than the
    first one's: these figures of theirs are left out.
    """

    name: str
    baseline: str
    found: Comparison
    seen: Sequence[Seen]
    otherwise: Sequence[str]
    bootstrap: Bootstrap

    @property
    def arms(self) -> list[Arm]:
        """What the arms are."""
        return [each.arm for each in self.seen]


def gather(given: Sequence[Given], config: ComparisonConfig) -> Experiment:
    """Reads and compares.

    Raises:
        InputError: evaluations that were not judged alike or have no turn in common, or something cannot be read.
    """
    bootstrap = Bootstrap(config.resamples, config.seed)
    found = compare({each.name: each.verdicts.path for each in given if each.verdicts is not None}, config.against)
    rates = {each.name: each.rates for each in found.arms}
    answered = {each.name: benchmarks.read(each.answers, bootstrap) for each in given if each.answers is not None}
    otherwise = _otherwise(answered, config.against)
    return Experiment(
        config.name,
        config.against,
        found,
        [
            Seen(arms.arm(each), rates.get(each.name, ()), _without(answered.get(each.name), each.name in otherwise))
            for each in given
        ],
        otherwise,
        bootstrap,
    )


def _otherwise(answered: dict[str, Answered], baseline: str) -> list[str]:
    judged = {name: each for name, each in answered.items() if each.judge}
    first = judged.get(baseline) or next(iter(judged.values()), None)
    return [name for name, each in judged.items() if first is not None and not benchmarks.alike(each, first)]


def _without(answered: Answered | None, otherwise: bool) -> Answered | None:
    if answered is None or not otherwise:
        return answered
    cells = {name: cell for name, cell in answered.cells.items() if name.partition("/")[0] not in FORMATS}
    scores = {name: own for name, own in answered.scores.items() if name not in FORMATS}
    return replace(answered, cells=cells, scores=scores)

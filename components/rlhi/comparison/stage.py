"""Puts the arms of an experiment side by side, each held against the first turn by turn, beside the paper's figures.

Every ARM is an output of evaluate; all of them have to be judged alike: evaluations whose judges, or the way these
were asked, differ are refused. Win rates are over the turns that all arms judged; what is left out is counted. An arm
differs from the baseline by its turn scores less the baseline's, paired, with an interval that resamples users and a
test that flips the signs of whole users.

Beside an arm's verdicts, by choice: the pairs that its model learned from, the model with its training, and its answers
to benchmarks. What was not measured stays empty on the page, which says what to run to fill it.

The page quotes users; users.parquet beside it lists them, so that one can be forgotten.

Example, by hand:

    rlhi comparison base=a/evaluate/verdicts rlhi=b/evaluate/verdicts --comparison out \\
      --pairs rlhi=b/rip/pairs --model rlhi=b/dpo/model

An arm's name may be left out: then it is what tells its path from the others'. The output holds the figures
(`rlhi.comparison.measured.ArmFigure`), ``report.html`` and its pictures.
"""

from typing import Any

from rlhi.artifacts import Input, Output
from rlhi.comparison.compare import compare
from rlhi.comparison.config import ComparisonConfig
from rlhi.comparison.measured import ArmFigure, as_metrics, rows
from rlhi.comparison.page import render


def run(comparison: Output[ArmFigure], config: ComparisonConfig, **inputs: Input[Any]) -> None:
    """Writes the figures, the page and its pictures; ``inputs`` are by kind and number of the arm: ``verdicts_1``.

    Raises:
        InputError: evaluations that were not judged alike, or have no turn in common.
    """
    evaluated = {arm: inputs.get(f"verdicts_{number}") for number, arm in enumerate(config.arms, 1)}
    found = compare({arm: given.path for arm, given in evaluated.items() if given is not None}, config.against)
    figures = rows(found)
    comparison.holds(turn.user_id for arm in found.arms for turn in arm.results.turns)
    comparison.write(figures, [], len(figures))
    comparison.measure(as_metrics(figures))
    comparison.file("report.html").write_text(render(found))

"""Puts the arms of an experiment side by side, held against one of them turn by turn, beside the paper's figures.

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

from rlhi.artifacts import Input, Output, user_rows
from rlhi.comparison.arms import Given
from rlhi.comparison.config import ComparisonConfig
from rlhi.comparison.experiment import gather
from rlhi.comparison.measured import ArmFigure, as_metrics, rows
from rlhi.comparison.page import pictures, render

KINDS = ("verdicts", "pairs", "model", "answers")


def run(comparison: Output[ArmFigure], config: ComparisonConfig, **inputs: Input[Any]) -> None:
    """Writes the figures, the page and its pictures; ``inputs`` are by kind and number of the arm: ``verdicts_1``.

    Raises:
        InputError: evaluations that were not judged alike or have no turn in common, or something cannot be read.
    """
    given = [
        Given(arm, **{kind: inputs.get(f"{kind}_{number}") for kind in KINDS})
        for number, arm in enumerate(config.arms, 1)
    ]
    experiment = gather(given, config)
    figures = rows(experiment)
    for each in given:  # whose turns are on the page, or whose pairs its figures are of
        for read in (each.verdicts, each.pairs, each.model):
            comparison.holds({} if read is None else user_rows(read.path))
    comparison.write(figures, [], len(figures))
    comparison.measure(as_metrics(figures))
    drawn = pictures(experiment)
    for name, picture in drawn.items():
        comparison.file(f"{name}.png").write_bytes(picture.png)
    comparison.file("report.html").write_text(render(experiment, drawn))

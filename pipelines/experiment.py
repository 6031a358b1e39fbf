"""`experiment`: several recipes as one run on this machine, and their models side by side."""

import argparse
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from pipelines import diff, experiments, flags, plan, running, summary
from pipelines.experiments import EXPERIMENTS, Experiment
from pipelines.names import named
from rlhi import study, tracking
from rlhi.errors import InputError
from rlhi.manifest import Manifest

if TYPE_CHECKING:
    from pipelines.local import Done, Progress

HELP = """\
Runs the arms of an experiment as one pipeline, in which what they share is computed once, and ends with their win rates
and with a page that puts them side by side. --set changes every arm that runs the stage. What is done is kept in
DIR/store by content, as of 'run': the arms of another experiment, or recipes that were run there, are reused.

In MLflow each experiment is one of that name, with a run for the whole and one for each arm, to compare and chart.

examples:
  python -m pipelines experiment table-2 --source logs.jsonl --work out
  python -m pipelines experiment thresholds --source 's3://bucket/logs/*.parquet' --work out --set dpo.epochs=3
  python -m pipelines experiment table-2 --source logs.jsonl --work out --benchmarks minerva.jsonl --set benchmark.n=4
"""
AXES = ("personalization", "instruction-following", "usereval")  # the columns of Table 2
MODES = ("context-only", "persona-guided")
SHOWN = ("evaluate", "benchmark", "rip", "dpo")  # the stages whose figures are in the table
ACCURACY = r"accuracy/[^/]+"


@dataclass(frozen=True)
class Other:
    """An experiment that is not made of recipes: ``main`` of ``module`` takes the rest of the command line."""

    name: str
    summary: str
    module: str


OTHERS: Mapping[str, Other] = {
    each.name: each
    for each in (
        Other(
            "known-tastes",
            "Whether training on personas personalizes, on simulated users whose tastes are known. It has flags of its"
            " own: python -m pipelines experiment known-tastes --help",
            "rlhi.tastes.__main__",
        ),
    )
}


def add(command: argparse.ArgumentParser) -> None:
    """The flags of `experiment`."""
    flags.add_recipe(command, "NAME")
    running.add(command, logs=False)


def other(words: Sequence[str]) -> int | None:
    """Runs the experiment that a command line names if it is not made of recipes; gives the exit code, else None."""
    if len(words) < 2 or words[0] != "experiment" or words[1] not in OTHERS:
        return None
    return int(importlib.import_module(OTHERS[words[1]].module).main(words[2:]))


def command(given: argparse.Namespace) -> int:
    """Runs `experiment`; gives the exit code.

    Raises:
        InputError: bad input; nothing has run then.
    """
    if given.recipe in OTHERS:
        raise InputError(f"{given.recipe}: has flags of its own; write them behind its name, see 'experiment --help'")
    named(given.recipe, {**{each.name: each for each in EXPERIMENTS}, **OTHERS}, "experiment")
    run = flags.run_of(given, experiments.find)
    if not given.source:
        raise InputError("--source: is missing; give the logs, a file, folder or glob, local or s3://")
    return running.here(run, given, partial(Tracked, run), partial(tell, run))


class Tracked:
    """The runs of an experiment in MLflow."""

    def __init__(self, run: Experiment, source: str, uri: str) -> None:
        self._run, self._uri, self._planned = run, uri, plan.plan(run)
        first = run.arms[0]
        differs = {
            arm.name: {name: right for name, (_, right) in diff.differences(first, arm).items()} for arm in run.arms
        }
        self._study = study.start(run.name, run.summary, differs, {"source": source}, uri)
        self.env = self._study.env

    def finish(self, progress: "Progress", place: str, *, failed: bool) -> None:
        """Closes them: an arm's failed if not all of its stages are done."""
        done = finished(progress.done)
        for arm in self._run.arms:
            own = [task.name for task in self._planned if arm in task.arms]
            manifests = [done[name] for name in own if name in done]
            failing, run = len(manifests) < len(own), self._study.arms[arm.name]
            tracking.finish_pipeline(run, manifests, self._uri, failed=failing, place=place)
        note = "\n\n".join([self._run.summary, as_markdown(figures(self._run, progress.done))])
        study.finish(self._study, page_folder(progress.done), note, self._uri, failed=failed)


def tell(run: Experiment, progress: "Progress", work: Path, uri: str) -> None:
    """Prints where the rows went, how the arms compare, and where everything lies."""
    shown = progress.console
    shown.print()
    shown.print(summary.funnel(progress.done))
    shown.print(as_table(figures(run, progress.done)))
    folder = page_folder(progress.done)
    places = [("run", str(work / "latest")), *([("page", str(folder / study.PAGE))] if folder is not None else [])]
    for name, place in [*places, summary.tracking_place(uri)]:
        shown.print(f"{name:<8} {place}", soft_wrap=True, highlight=False, markup=False)


def finished(done: Sequence["Done"]) -> dict[str, Manifest]:
    """What the tasks that are no shards made, by their names."""
    return {one.task.whole: one.described for one in done if one.described is not None and one.described.shard is None}


def page_folder(done: Sequence["Done"]) -> Path | None:
    """The output of the comparison; None where it is not done."""
    found = [next(iter(one.task.outputs.values())) for one in done if one.task.stage == study.FOLDER]
    return found[0] if found else None


def figures(run: Experiment, done: Sequence["Done"]) -> list[list[str]]:
    """A row for each arm and way to answer, under the names; all but the pairs in %, with intervals in brackets."""
    made, planned = finished(done), plan.plan(run)
    found = {
        arm.name: {stage: made.get(task.name) for stage in SHOWN if (task := plan.last(planned, arm, stage))}
        for arm in run.arms
    }
    asked = [each.metrics for own in found.values() if (each := own.get("benchmark"))]
    suites = sorted({name for metrics in asked for name in metrics if re.fullmatch(ACCURACY, name)})
    rows = [["arm", "answers", *AXES, *(name.partition("/")[2] for name in suites), "pairs", "validation"]]
    for arm, own in found.items():
        once = [_figure(own.get("benchmark"), name) for name in suites]
        once += [_pairs(own.get("rip")), _figure(own.get("dpo"), "validation_accuracy")]
        for mode in MODES:
            rates = [_figure(own.get("evaluate"), f"win_rate/log/{axis}/{mode}") for axis in AXES]
            if mode == MODES[0]:
                rows.append([arm, mode if any(rates) else "", *rates, *once])
            elif any(rates):
                rows.append(["", mode, *rates, *([""] * len(once))])
    return rows


def as_table(rows: Sequence[Sequence[str]]) -> Table:
    """The figures for a terminal."""
    names, *others = _measured(rows)
    table = Table(title="Arms: win rates against the log, accuracies; in %, with 95% intervals", title_justify="left")
    for name in names:
        words = name in ("arm", "answers")
        table.add_column(name, justify="left" if words else "right", no_wrap=words)
    for row in others:
        table.add_row(*row)
    return table


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """The figures for MLflow."""
    names, *others = [tracking.GAP.join(row) for row in _measured(rows)]
    return "\n".join([names, "|".join(["---"] * names.count("|") + ["---"]), *others])


def _measured(rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The rows without the columns that nothing was measured for."""
    return [*zip(*(column for column in zip(*rows, strict=True) if any(column[1:])), strict=True)]


def _figure(made: Manifest | None, name: str) -> str:
    """A share in %, with its interval where it has one; empty where it was not measured."""
    share = None if made is None else made.metrics.get(name)
    if made is None or share is None:
        return ""
    low, high = made.metrics.get(f"{name}/low"), made.metrics.get(f"{name}/high")
    return f"{100 * share:.1f}" + ("" if low is None or high is None else f" ({100 * low:.0f} to {100 * high:.0f})")


def _pairs(made: Manifest | None) -> str:
    return "" if made is None else str(made.kept)

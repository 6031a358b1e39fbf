"""What a person sees after a run: where the rows went, who won, and where everything lies."""

import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlhi.classify.shares import measured_shares
from rlhi.paper import LABEL_SHARES

if TYPE_CHECKING:
    from pipelines.local import Done

LENGTH = "length/mean"  # of sample, in characters
GROWN = 1.25  # times as long as in the first round: by chance, answers to other prompts differ by less
WIN_RATE = "win_rate/"
WIN_RATE_PARTS = 3  # opponent, metric and mode come after the prefix; interval and the like one deeper


def console() -> Console:
    """Standard output; where it is no terminal, wide enough that tables stay whole."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
    return Console(width=width)


def tell(shown: Console, done: Sequence["Done"], work: Path, tracking_uri: str) -> None:
    """Prints where the rows went, who won, and where everything lies."""
    shown.print()
    shown.print(funnel(done))
    labelled = [one.described.metrics for one in done if one.described is not None and one.task.stage == "classify"]
    for table in filter(None, map(label_shares, labelled)):
        shown.print(table)
    for each in (rounds(done), grown(done)):
        if each is not None:
            shown.print(each)
    judged = [one.described.metrics for one in done if one.described is not None and one.task.stage == "evaluate"]
    for table in filter(None, map(win_rates, judged)):
        shown.print(table)
    for name, place in places(done, work, tracking_uri):
        shown.print(f"{name:<8} {place}", soft_wrap=True, highlight=False, markup=False)


def funnel(done: Iterable["Done"]) -> Table:
    """Where the rows went, stage by stage; the time is that of the stage and of its shards, one after the other."""
    table = Table(title="Rows", title_justify="left")
    table.add_column("stage", style="bold", no_wrap=True)
    for name in ("in", "kept"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("dropped", ratio=1)
    table.add_column("time", justify="right", no_wrap=True)
    waited: Counter[str] = Counter()  # for the shards of a stage
    for one in done:
        made = one.described
        if made is not None and made.shard is not None:
            waited[one.task.whole] += 0 if one.reused else round(one.seconds)
        elif made is not None:
            dropped = ", ".join(f"{reason} {rows}" for reason, rows in made.dropped.items())
            own = 0 if one.reused else one.seconds
            before = waited[one.task.whole]
            time = "reused" if one.reused and not before else f"{before + own:.0f} s"
            table.add_row(one.task.whole, str(made.rows_in), str(made.kept), escape(dropped), time)
    return table


def label_shares(metrics: Mapping[str, float]) -> Table | None:
    """How often users said what, beside the paper's shares; None where no message was labelled."""
    shares = measured_shares(metrics)
    if not shares:
        return None
    table = Table(title="User messages", title_justify="left")
    table.add_column("label", no_wrap=True)
    for name in ("share", "in the paper"):
        table.add_column(name, justify="right", no_wrap=True)
    known = {str(label): f"{share:.2f} %" for label, share in LABEL_SHARES.items()}
    for name, share in shares.items():
        table.add_row(name, _percent(share), known.get(name, ""))
    return table


def rounds(done: Sequence["Done"]) -> Table | None:
    """What changed from round to round of online training; None where there was one."""
    made = {stage: _metrics(done, stage) for stage in ("sample", "reward", "dpo")}
    if len(made["sample"]) < 2:
        return None
    table = Table(title="Rounds", title_justify="left")
    for name in ("round", "characters of an answer", "reward", "validation accuracy"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, (sampled, scored, trained) in enumerate(zip(*made.values(), strict=False), start=1):
        figures = (sampled.get(LENGTH), scored.get("reward/mean"), trained.get("validation_accuracy"))
        table.add_row(str(number), *("" if figure is None else f"{figure:.4g}" for figure in figures))
    return table


def grown(done: Sequence["Done"]) -> str | None:
    """A warning where answers have become longer from the first round to the last; None where they have not."""
    lengths = [metrics[LENGTH] for metrics in _metrics(done, "sample") if LENGTH in metrics]
    if len(lengths) < 2 or lengths[-1] < GROWN * lengths[0]:
        return None
    return (
        f"[yellow]warning:[/] over {len(lengths)} rounds answers grew from {lengths[0]:.0f} to {lengths[-1]:.0f}"
        " characters; see whether they are better or only longer: fewer rounds, a larger dpo.beta or a reward that does"
        " not like length would hold them"
    )


def _metrics(done: Sequence["Done"], stage: str) -> list[Mapping[str, float]]:
    """Of a stage, round by round."""
    found = [one.described for one in done if one.described is not None and one.described.stage == stage]
    return [each.metrics for each in found if each.shard is None]


def win_rates(metrics: Mapping[str, float]) -> Table | None:
    """The trained model's win rates with their intervals; None where nothing was judged."""
    names = [name for name in metrics if name.startswith(WIN_RATE) and name.count("/") == WIN_RATE_PARTS]
    if not names:
        return None
    table = Table(title="Win rate of the trained model", title_justify="left")
    for name in ("against", "axis", "answers", "win rate", "interval", "contradicts itself"):
        table.add_column(name, justify="left" if name in ("against", "axis", "answers") else "right", no_wrap=True)
    for name in names:
        parts = [*name.removeprefix(WIN_RATE).split("/"), "", ""][:3]
        table.add_row(*map(escape, parts), _percent(metrics[name]), _interval(metrics, name), _flips(metrics, name))
    return table


def places(done: Sequence["Done"], work: Path, tracking_uri: str) -> list[tuple[str, str]]:
    """What lies where, and how to look at it; of stages that ran in rounds, what the last one made."""
    folders = {one.task.stage: next(iter(one.task.outputs.values())) for one in done if one.task.outputs}
    found = [("run", work / "latest")]
    found += [("pairs", folders[stage]) for stage in ("rip",) if stage in folders]
    found += [("adapter", _adapter(folders[stage])) for stage in ("dpo",) if stage in folders]
    found += [("report", path) for stage in folders for path in sorted(folders[stage].rglob("report.html"))]
    found += [("analysis", path) for stage in folders for path in sorted(folders[stage].rglob("analysis.html"))]
    found += [("decision", path) for stage in folders for path in sorted(folders[stage].rglob("decision.md"))]
    return [(name, str(path)) for name, path in found] + [tracking_place(tracking_uri)]


def _adapter(folder: Path) -> Path:
    return next((path.parent for path in sorted(folder.rglob("adapter_config.json"))), folder)


def tracking_place(uri: str) -> tuple[str, str]:
    """How to look at MLflow."""
    if uri.startswith(("http://", "https://")):
        return "MLflow", uri
    python = shlex.quote(os.path.relpath(sys.executable))
    return "MLflow", f"{python} -m mlflow ui --backend-store-uri {shlex.quote(uri)}"


def _interval(metrics: Mapping[str, float], name: str) -> str:
    low, high = metrics.get(f"{name}/low"), metrics.get(f"{name}/high")
    return "" if low is None or high is None else f"{_percent(low)} to {_percent(high)}"


def _flips(metrics: Mapping[str, float], name: str) -> str:
    """Share of turns on which the judge changed its mind when the order of the answers was swapped."""
    share = metrics.get(f"{name}/disagreement")
    return "" if share is None else _percent(share)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"

"""What a person sees after a run: where the rows went, who won, and where everything lies."""

import os
import shlex
import sys
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
    judged = [one.described.metrics for one in done if one.described is not None and one.task.stage == "evaluate"]
    for table in filter(None, map(win_rates, judged)):
        shown.print(table)
    for name, place in places(done, work, tracking_uri):
        shown.print(f"{name:<8} {place}", soft_wrap=True, highlight=False, markup=False)


def funnel(done: Iterable["Done"]) -> Table:
    """Where the rows went, stage by stage."""
    table = Table(title="Rows", title_justify="left")
    table.add_column("stage", style="bold", no_wrap=True)
    for name in ("in", "kept"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("dropped", ratio=1)
    table.add_column("time", justify="right", no_wrap=True)
    for one in done:
        if one.described is not None:
            made = one.described
            dropped = ", ".join(f"{reason} {rows}" for reason, rows in made.dropped.items())
            time = "reused" if one.reused else f"{one.seconds:.0f} s"
            table.add_row(made.stage, str(made.rows_in), str(made.kept), escape(dropped), time)
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
    """What lies where, and how to look at it."""
    folders = {one.task.stage: next(iter(one.task.outputs.values())) for one in done if one.task.outputs}
    found = [("run", work / "latest")]
    found += [("pairs", folders[stage]) for stage in ("rip",) if stage in folders]
    found += [("adapter", _adapter(folders[stage])) for stage in ("dpo",) if stage in folders]
    found += [("report", path) for stage in folders for path in sorted(folders[stage].rglob("report.html"))]
    found += [("analysis", path) for stage in folders for path in sorted(folders[stage].rglob("analysis.html"))]
    return [(name, str(path)) for name, path in found] + [_tracking(tracking_uri)]


def _adapter(folder: Path) -> Path:
    return next((path.parent for path in sorted(folder.rglob("adapter_config.json"))), folder)


def _tracking(uri: str) -> tuple[str, str]:
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

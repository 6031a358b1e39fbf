"""The pictures of a comparison, drawn as `rlhi.figures` draws, for the page and for MLflow.

Ours are filled and blue, the paper's are hollow diamonds: what is not in its text is not drawn.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rlhi.comparison.ablations import Bar, Crowd
from rlhi.comparison.benchmarks import Cell
from rlhi.comparison.beside import AXES
from rlhi.comparison.glance import Glance
from rlhi.comparison.lengths import Length
from rlhi.evaluate.headline import p_value, points
from rlhi.figures import BLUE, FAINT, VERMILLION, as_png, as_svg, drawing

LIGHT = {"color": FAINT, "linewidth": 1, "zorder": 0}
PAPER = {"marker": "D", "markersize": 5, "color": VERMILLION, "markerfacecolor": "white", "linestyle": "none"}
OURS = {"marker": "o", "markersize": 5.5, "color": BLUE, "linestyle": "none"}
OTHER = {"marker": "o", "markersize": 4, "color": FAINT, "markerfacecolor": "none", "linestyle": "none"}
INSET = 34  # characters of an arm's name that fit beside a picture


@dataclass
class Picture:
    """A drawing as an ``<svg>`` for a page and as a PNG."""

    svg: str = ""
    png: bytes = field(default=b"", repr=False)


def glance(arms: Sequence[Glance], baseline: str, mode: str, other: str) -> Picture | None:
    """Win rates by axis, arms below each other, with their intervals and the paper's."""
    axes = [axis for axis in AXES if any(axis in each.cells for each in arms)]
    if not axes:
        return None
    with _picture("glance", 0.42 * len(arms) + 1.1) as (figure, made):
        low, high = _ends([cell for each in arms for cell in (*each.cells.values(), *each.other.values())], arms)
        for place, (panel, axis) in enumerate(zip(_panels(figure, len(axes)), axes, strict=True)):
            panel.axvline(50, **LIGHT)
            against = next(
                (each.cells[axis].value for each in arms if each.arm.name == baseline and axis in each.cells), None
            )
            if against is not None:
                panel.axvline(100 * against, color=BLUE, linewidth=1, linestyle=(0, (2, 3)), zorder=0)
            for row, each in enumerate(arms):
                _cell(panel, each.other.get(axis), row - 0.2, OTHER)
                _cell(panel, each.cells.get(axis), row, OURS)
                if axis in each.paper:
                    panel.plot(each.paper[axis], row + 0.22, **PAPER)
            _rows(panel, [each.arm.name for each in arms], (low, high), named=not place)
            panel.set_title(axis, fontsize=9, loc="left")
        figure.supxlabel("win rate (%), 95% interval; dotted: the baseline", fontsize=9)
        looks = {mode: OURS, "the paper's, same mode": PAPER}
        _legend(figure, {**looks, other: OTHER} if any(each.other for each in arms) else looks)
    return made


def differences(arms: Sequence[Glance]) -> Picture | None:
    """Each arm's difference from the baseline in points, with its interval, its p, and the paper's."""
    own = [each for each in arms if each.apart is not None and each.apart.difference is not None]
    if not own:
        return None
    with _picture("differences", 0.36 * len(own) + 1.0) as (figure, made):
        panel = figure.subplots()
        panel.axvline(0, **LIGHT)
        reach = [5.0]
        for row, each in enumerate(own):
            apart = each.apart
            if apart is None or apart.difference is None:
                continue
            _cell(panel, Cell(apart.difference, apart.low, apart.high, apart.turns), row, OURS)
            said = f"{points(apart.difference)}   p {p_value(each.holm)}"
            panel.text(1.02, row, said, transform=panel.get_yaxis_transform(), va="center", fontsize=8)
            if each.paper_apart is not None:
                panel.plot(each.paper_apart, row + 0.2, **PAPER)
            bounds = (apart.difference, *(bound for bound in (apart.low, apart.high) if bound is not None))
            reach += [abs(100 * bound) for bound in bounds] + [abs(each.paper_apart or 0)]
        _rows(panel, [each.arm.name for each in own], (-1.08 * max(reach), 1.08 * max(reach)), named=True)
        figure.supxlabel("points, 95% interval; p with all arms' tests accounted for", fontsize=9)
        looks = {"these runs": OURS}
        _legend(figure, {**looks, "the paper's": PAPER} if any(each.paper_apart is not None for each in own) else looks)
    return made


def ablation(bars: Sequence[Bar]) -> Picture | None:
    """Fig. 3: user-based and standard evaluation of RLHI, of SFT, and without filter."""
    sides = [side for side in ("user", "standard") if any(getattr(each, side) is not None for each in bars)]
    if not sides:
        return None
    titles = {"user": "user-based evaluation (usereval)", "standard": "mean of AlpacaEval LC and Arena-Hard"}
    with _picture("figure-3", 0.42 * len(bars) + 0.9) as (figure, made):
        for place, (panel, side) in enumerate(zip(_panels(figure, len(sides)), sides, strict=True)):
            for row, each in enumerate(bars):
                _bar(panel, getattr(each, side), row)
                if (theirs := getattr(each, f"{side}_paper")) is not None:
                    panel.plot(theirs, row, **PAPER)
            _rows(panel, [each.label for each in bars], (0, 100), named=not place)
            panel.set_title(titles[side], fontsize=9, loc="left")
        figure.supxlabel("%; a method without bar was not run", fontsize=9)
        _legend(figure, {"the paper's Tables 2 and 3": PAPER})
    return made


def diversity(crowds: Sequence[Crowd]) -> Picture | None:
    """Fig. 4: the win rate by the number of users whose pairs were trained on, the most on top."""
    if not crowds:
        return None
    rows = sorted(crowds, key=lambda each: -each.users)
    with _picture("figure-4", 0.4 * len(rows) + 0.8) as (figure, made):
        panel = figure.subplots()
        panel.axvline(50, **LIGHT)
        for row, each in enumerate(rows):
            _cell(panel, each.cell, row, OURS)
            said = f"{each.users:,} user{'' if each.users == 1 else 's'}, {each.pairs:,} pairs"
            panel.text(1.02, row, said, transform=panel.get_yaxis_transform(), va="center", fontsize=8)
        _rows(panel, [each.arm for each in rows], (0, 100), named=True)
        figure.supxlabel("win rate (%), usereval, 95% interval", fontsize=9)
    return made


def by_length(lengths: Sequence[Length]) -> Picture | None:
    """Lengths and win rates side by side: does the longer arm win, and what is left at equal length?"""
    own = [each for each in lengths if each.times is not None and each.rate is not None]
    if len(own) < 2:
        return None
    with _picture("lengths", 0.38 * len(own) + 1.1) as (figure, made):
        left, right = figure.subplots(1, 2)
        left.axvline(1, **LIGHT)
        right.axvline(50, **LIGHT)
        for row, each in enumerate(own):
            left.barh(row, (each.times or 1) - 1, left=1, height=0.45, color=BLUE, alpha=0.3)
            left.plot(each.times, row, **OURS)
            ends = [100 * rate for rate in (each.rate, each.controlled) if rate is not None]
            right.plot(ends, [row] * len(ends), color=FAINT, linewidth=1)
            right.plot(ends[1:], [row] * (len(ends) - 1), **OTHER)
            right.plot(ends[0], row, **OURS)
        times = [each.times for each in own if each.times is not None]
        room = 0.1 * (max(1.0, *times) - min(1.0, *times)) + 0.05
        _rows(left, [each.arm for each in own], (min(1.0, *times) - room, max(1.0, *times) + room), named=True)
        _rows(right, [each.arm for each in own], (0, 100), named=False)
        left.set_title("length by the baseline's", fontsize=9, loc="left")
        right.set_title("win rate (%)", fontsize=9, loc="left")
        looks = {"as judged": OURS, "at equal length": OTHER}
        _legend(figure, looks if any(each.controlled is not None for each in own) else {"as judged": OURS})
    return made


@contextmanager
def _picture(name: str, height: float) -> Iterator[tuple[Any, Picture]]:
    made = Picture()
    with drawing(height) as figure:
        yield figure, made
        made.svg, made.png = as_svg(figure, name), as_png(figure)


def _panels(figure: Any, count: int) -> list[Any]:
    return list(figure.subplots(1, count, squeeze=False, sharex=True)[0])


def _cell(panel: Any, cell: Cell | None, row: float, look: Mapping[str, Any]) -> None:
    if cell is None:
        return
    if cell.low is not None and cell.high is not None:
        panel.plot((100 * cell.low, 100 * cell.high), (row, row), color=look["color"], linewidth=1.5)
    panel.plot(100 * cell.value, row, **look)


def _bar(panel: Any, cell: Cell | None, row: int) -> None:
    if cell is None:
        return
    panel.barh(row, 100 * cell.value, height=0.5, color=BLUE, alpha=0.3)
    if cell.low is not None and cell.high is not None:
        panel.plot((100 * cell.low, 100 * cell.high), (row, row), color=BLUE, linewidth=1.5)


def _rows(panel: Any, names: Sequence[str], ends: tuple[float, float], named: bool) -> None:
    panel.set(xlim=ends, ylim=(len(names) - 0.4, -0.6))
    panel.set_yticks(range(len(names)), [_short(name) for name in names] if named else [""] * len(names))
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= INSET else f"{name[: INSET - 1]}…"


def _ends(cells: Sequence[Cell], arms: Sequence[Glance]) -> tuple[float, float]:
    values = [100 * value for cell in cells for value in (cell.value, cell.low, cell.high) if value is not None]
    values += [50.0, *(figure for each in arms for figure in each.paper.values())]
    return max(0.0, min(values) - 4) if min(values) > 0 else -2.0, min(102.0, max(values) + 4)


def _legend(figure: Any, looks: Mapping[str, Mapping[str, Any]]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **look) for look in looks.values()]
    figure.legend(handles, list(looks), loc="outside upper left", ncols=3, frameon=False, fontsize=8.5)

"""The pictures of a comparison, drawn as `rlhi.figures` draws."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhi.evaluate.headline import MODES, OPPONENTS
from rlhi.evaluate.winrates import WinRate
from rlhi.figures import BLUE, FAINT, ORANGE, VERMILLION, as_svg, drawing, message
from rlhi.records import Mode, Opponent

SKY, GREEN, PURPLE = "#56B4E9", "#009E73", "#CC79A7"
ARMS = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (SKY, "P"))


def arms(names: Sequence[str], rows: Mapping[tuple[Opponent, Mode], Mapping[str, Sequence[WinRate | None]]]) -> str:
    """SVG: each win rate with its interval, models side by side; at most six look different.

    ``rows`` is opponent and mode to metric to each model's rate, as `rlhi.comparison.page.side_by_side` gives it.
    """
    if not rows:
        return message("No win rate was measured.", "svg").decode()
    looks = [ARMS[place % len(ARMS)] for place in range(len(names))]
    lines = sum(1.5 + len(own) * (0.5 + 0.5 * len(names)) for own in rows.values())
    with drawing(0.3 * lines + 0.9) as figure:
        axes = figure.subplots()
        place = 0.0
        for (opponent, mode), own in rows.items():
            axes.text(0, place, f"{MODES[mode]}, against {OPPONENTS[opponent]}", fontweight="bold", va="center")
            place += 1.2
            start = place - 0.5
            for metric, rates in own.items():
                place = _arms_of(axes, metric, list(zip(rates, looks, strict=True)), place)
            axes.plot((50, 50), (start, place - 0.5), color=FAINT, linewidth=1, zorder=0)
            place += 0.3
        _legend(axes, dict(zip(names, looks, strict=True)))
        axes.set(xlim=(0, 100), ylim=(place - 0.3, -1.0), xlabel="win rate (%), 95% interval")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        return as_svg(figure, "arms")


def _arms_of(axes: Any, metric: str, found: Sequence[tuple[WinRate | None, tuple[str, str]]], place: float) -> float:
    """One metric's lines, and where the next one begins."""
    middle = place + 0.5 * (len(found) - 1) / 2
    axes.text(-1.5, middle, "reward model" if metric == "reward" else metric, ha="right", va="center")
    for rate, (colour, marker) in found:
        if rate is not None and rate.rate is not None:
            if rate.low is not None and rate.high is not None:
                axes.plot((100 * rate.low, 100 * rate.high), (place, place), color=colour, linewidth=1.5)
            axes.plot(100 * rate.rate, place, marker=marker, markersize=5, color=colour, clip_on=False)
        place += 0.5
    return place + 0.5


def _legend(axes: Any, looks: Mapping[str, tuple[str, str]]) -> None:
    for name, (colour, marker) in looks.items():
        axes.plot([], [], color=colour, marker=marker, markersize=5, linewidth=1.5, label=name)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=max(1, min(3, 60 // max(map(len, looks)))), frameon=False
    )

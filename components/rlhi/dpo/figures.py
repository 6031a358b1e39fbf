"""The curves of a training in one picture: training's as lines, validation's dashed and with hollow marks.

The same rows give the same bytes; chosen and rejected differ in their marks, not in colour alone.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rlhi.dpo.watch import best_step
from rlhi.figures import BLUE, FAINT, INK, VERMILLION, as_png, as_svg, drawing, message

_CHOSEN, _REJECTED = (BLUE, "o"), (VERMILLION, "s")  # colour and mark
_PANELS = (
    ("loss", {"loss": _CHOSEN}),
    ("accuracy: chosen ranked first", {"rewards/accuracies": _CHOSEN}),
    ("reward margin", {"rewards/margins": _CHOSEN}),
    ("reward: gain on the reference × beta", {"rewards/chosen": _CHOSEN, "rewards/rejected": _REJECTED}),
    ("log-probability of an answer (nats)", {"logps/chosen": _CHOSEN, "logps/rejected": _REJECTED}),
    ("learning rate", {"learning_rate": _CHOSEN}),
)
_HOLLOW: dict[str, Any] = {"linestyle": "--", "linewidth": 1, "markersize": 4, "markerfacecolor": "none"}
DRAWN = 120  # points of a curve; of more steps, each shows the mean of a few
NOTHING = "No training history was recorded."
_Panels = list[tuple[str, dict[str, tuple[str, str]]]]
History = Sequence[Mapping[str, float]]


def curves_svg(history: History) -> str:
    """SVG of what was recorded: loss, accuracy, margin, rewards, log-probabilities and learning rate by step."""
    panels = _recorded(history)
    if not panels:
        return message(NOTHING, "svg").decode()
    with drawing(_height(panels)) as figure:
        _draw(figure, panels, history)
        return as_svg(figure, "training")


def curves_png(history: History) -> bytes:
    """The same as a PNG."""
    panels = _recorded(history)
    if not panels:
        return message(NOTHING, "png")
    with drawing(_height(panels)) as figure:
        _draw(figure, panels, history)
        return as_png(figure)


def _recorded(history: History) -> _Panels:
    found = [(title, {key: look for key, look in curves.items() if _points(history, key)}) for title, curves in _PANELS]
    return [(title, curves) for title, curves in found if curves]


def _height(panels: _Panels) -> float:
    return 1.95 * math.ceil(len(panels) / 2) + 0.3


def _draw(figure: Any, panels: _Panels, history: History) -> None:
    columns = min(2, len(panels))
    places = list(figure.subplots(math.ceil(len(panels) / columns), columns, squeeze=False).flat)
    for axes, (title, curves) in zip(places, panels, strict=False):
        _panel(axes, title, curves, history)
    for axes in places[len(panels) :]:
        axes.axis("off")
    _legend(figure, history, two=any(len(curves) > 1 for _, curves in panels))


def _panel(axes: Any, title: str, curves: Mapping[str, tuple[str, str]], history: History) -> None:
    for key, (colour, mark) in curves.items():
        _curve(axes, _thinned(_points(history, key)), color=colour, marker=mark, markersize=3, linewidth=1.5)
        _curve(axes, _points(history, f"eval_{key}"), color=colour, marker=mark, **_HOLLOW)
    if (best := best_step(history)) is not None:
        axes.axvline(best, color=FAINT, linestyle=":", linewidth=1, zorder=0)
    if title.startswith("accuracy"):
        axes.set_ylim(-0.03, 1.03)
        axes.axhline(0.5, color=FAINT, linewidth=1, zorder=0)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(y=0.2)


def _curve(axes: Any, points: Sequence[tuple[float, float]], **look: Any) -> None:
    """Marks all of few points, a dozen of many."""
    if points:
        axes.plot(*zip(*points, strict=True), markevery=max(1, len(points) // 12), **look)


def _legend(figure: Any, history: History, two: bool) -> None:
    from matplotlib.lines import Line2D

    sides = [("chosen", *_CHOSEN), ("rejected", *_REJECTED)] if two else []
    handles = [Line2D([], [], color=colour, marker=mark, markersize=4, label=name) for name, colour, mark in sides]
    if (best := best_step(history)) is not None:
        handles += [
            Line2D([], [], color=INK, linewidth=1.5, label="training"),
            Line2D([], [], color=INK, marker="o", **_HOLLOW, label="validation"),
            Line2D([], [], color=FAINT, linestyle=":", label=f"lowest validation loss: step {best:.0f}"),
        ]
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8)


def _points(history: History, key: str) -> list[tuple[float, float]]:
    found = [(row["step"], row[key]) for row in history if key in row and "step" in row]
    return [(step, value) for step, value in found if math.isfinite(value)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of as many neighbours as leave at most `DRAWN` points."""
    size = math.ceil(len(points) / DRAWN)
    groups = [points[start : start + size] for start in range(0, len(points), size or 1)]
    return [(fmean(step for step, _ in group), fmean(value for _, value in group)) for group in groups]

"""The calibrator's picture: how many pairs each rule leaves, wherever it cuts, and how many all three together."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhi.figures import BLUE, FAINT, INK, VERMILLION, as_png, drawing
from rlhi.rip.calibration import RULES, Calibration, Proposal, passes
from rlhi.rip.rules import RuleName, values_of

TITLES: dict[RuleName, tuple[str, str]] = {
    "length": ("length of the rejected answer", "at least … characters"),
    "reward": ("reward of the rejected answer", "at least …"),
    "gap": ("gap between the rewards", "at most …"),
}
DASHED, DOTTED = (0, (4, 1.5)), (0, (1, 1.5))
FAR = 30  # between the shortest and the longest answer, so that a log axis helps


def survival(found: Calibration, floor: int, proposal: Proposal | None) -> bytes:
    """PNG: for each rule, pairs left by threshold, alone and with the other two; and all three by strictness."""
    with drawing(5.4) as figure:
        panels = list(figure.subplots(2, 2).flat)
        for axes, rule in zip(panels, RULES, strict=False):
            _rule_panel(axes, found, rule)
        _joint_panel(panels[-1], found, floor, proposal)
        _legend(figure, found)
        return as_png(figure)


def _rule_panel(axes: Any, found: Calibration, rule: RuleName) -> None:
    values = values_of(found.pairs)
    own = values[rule]
    axes.step(*_left(own, own, rule), color=BLUE, linewidth=1.8, where=_side(rule))
    if found.shown is not None:
        limits = found.shown.limits
        others = [mask for name, mask in passes(values, limits).items() if name != rule]
        both = _left(own, own[np.logical_and.reduce(others)], rule)
        axes.step(*both, color=VERMILLION, linewidth=1.8, linestyle=DASHED, where=_side(rule))
        _cut(axes, {"length": limits.min_length, "reward": limits.min_reward, "gap": limits.max_gap}[rule])
    title, label = TITLES[rule]
    _finish(axes, title, label, len(found.pairs))
    if rule == "length" and own.max() > FAR * max(1, own.min()):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_minor_formatter("")


def _joint_panel(axes: Any, found: Calibration, floor: int, proposal: Proposal | None) -> None:
    steps, counts = zip(*found.steps, strict=True)
    axes.plot(steps, counts, color=BLUE, linewidth=1.8, marker="o", markersize=3)
    _finish(axes, "all three, as quantiles in step", "from no filter (0) to RIP's quantiles (1)", len(found.pairs))
    if floor > 1:
        axes.axhline(floor, color=FAINT, linewidth=1)
        axes.text(0.0, floor, f"at least {floor:,}", fontsize=8, va="bottom")
    if proposal is not None:
        kept = dict(found.steps)[proposal.strictness]
        axes.plot(proposal.strictness, kept, "D", color=VERMILLION, markersize=7, clip_on=False, zorder=4)
        axes.set_title(f"proposed: {kept:,}", fontsize=8, loc="right", color=VERMILLION)


def _left(every: np.ndarray, values: np.ndarray, rule: RuleName) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds, and how many of ``values`` each leaves; what lies on a threshold stays."""
    at = np.unique(every)
    ordered = np.sort(values)
    if rule == "gap":
        return at, np.searchsorted(ordered, at, side="right")
    return at, len(values) - np.searchsorted(ordered, at, side="left")


def _side(rule: RuleName) -> str:
    """Where between two values the count of the one, or of the other, holds."""
    return "post" if rule == "gap" else "pre"


def _cut(axes: Any, at: float) -> None:
    axes.axvline(at, color=INK, linewidth=1, linestyle=DOTTED)
    axes.text(
        at,
        1.01,
        f" {at:,.0f}" if abs(at) >= 100 else f" {at:.3g}",
        fontsize=8,
        va="bottom",
        transform=axes.get_xaxis_transform(),
    )


def _finish(axes: Any, title: str, label: str, count: int) -> None:
    axes.set_title(title, fontsize=9, loc="left", pad=15)
    axes.set(xlabel=label, ylabel="pairs left", ylim=(0, 1.05 * count))
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(figure: Any, found: Calibration) -> None:
    from matplotlib.lines import Line2D

    marks: Sequence[Any] = [Line2D([], [], color=BLUE, linewidth=1.8)]
    names = ["this rule alone"]
    if found.shown is not None:
        marks = [
            *marks,
            Line2D([], [], color=VERMILLION, linewidth=1.8, linestyle=DASHED),
            Line2D([], [], color=INK, linewidth=1, linestyle=DOTTED),
        ]
        names = [*names, "with the other two where they cut", "where it cuts"]
    figure.legend(marks, names, loc="outside upper left", ncols=3, frameon=False, fontsize=8)

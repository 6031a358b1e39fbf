"""The pictures of a run. Each is a pure function of its rows: the same rows give the same bytes.

Colours are Okabe and Ito's, which people with any common colour blindness tell apart; no statement is made by colour
alone. SVG text stays text, in the colour of its surroundings, so that a page can show it on light and dark.
"""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rlhi.manifest import FunnelRow
from rlhi.records import Pair

if TYPE_CHECKING:
    from rlhi.evaluate.winrates import WinRate

BLUE, ORANGE, VERMILLION = "#0072B2", "#E69F00", "#D55E00"
INK, FAINT = "#2b2f36", "#9aa0a8"
WIDTH = 6.6  # inches

_OPPONENTS = {"log": "the log", "base": "the base model", "champion": "the champion"}
_METRICS = {"instruction-following": "instr.-following", "reward": "reward model"}


def margins(pairs: Sequence[Pair]) -> bytes:
    """PNG: how far the rewards of chosen and rejected lie apart, and where both lie."""
    if not pairs:
        return message("There are no pairs to show.", "png")
    gaps = sorted(pair.chosen_reward - pair.rejected_reward for pair in pairs)
    middle = (gaps[(len(gaps) - 1) // 2] + gaps[len(gaps) // 2]) / 2
    with drawing(2.9) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        left.hist(gaps, bins=min(40, max(6, math.isqrt(len(gaps)))), color=BLUE, edgecolor="white", linewidth=0.5)
        left.axvline(middle, color=VERMILLION, linewidth=1.5)
        left.set_title(f"median {middle:.3g}", color=VERMILLION, fontsize=9, loc="left")
        left.set(xlabel="chosen reward − rejected reward", ylabel="pairs")
        left.yaxis.get_major_locator().set_params(integer=True)
        _scatter(right, pairs)
        return as_png(figure)


def funnel(rows: Sequence[FunnelRow]) -> str:
    """SVG: the share of rows each stage kept and dropped, with the most frequent reasons."""
    if not rows:
        return message("No stage has run.", "svg").decode()
    with drawing(0.55 * len(rows) + 0.5) as figure:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            share = row.kept / row.rows_in if row.rows_in else 0.0
            lost = (1 - share) if row.rows_in else 0.0
            axes.barh(place, share, height=0.42, color=BLUE, label="_" if place else "kept")
            axes.barh(place, lost, left=share, height=0.42, color=ORANGE, label="_" if place else "dropped")
            axes.text(-0.02, place, row.stage, ha="right", va="center", fontweight="bold")
            axes.text(1.02, place, f"{row.kept:,} of {row.rows_in:,}", ha="left", va="center")
            axes.text(0, place + 0.27, _top_reasons(row), ha="left", va="top", fontsize=8, alpha=0.7)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.97), ncols=2, frameon=False)
        axes.set(xlim=(0, 1), ylim=(len(rows) - 0.3, -0.4))
        axes.axis("off")
        return as_svg(figure, "funnel")


def win_rates(rates: Sequence["WinRate"]) -> str:
    """SVG: each win rate with its 95% interval against the line of no difference, by opponent and mode."""
    if not rates:
        return message("No win rate was measured.", "svg").decode()
    groups = [(key, list(rows)) for key, rows in groupby(sorted(rates, key=_group), key=_group)]
    lines = len(rates) + 1.3 * len(groups)
    with drawing(0.29 * lines + 0.6) as figure:
        axes = figure.subplots()
        place = 0.0
        for (_, opponent, mode), rows in groups:
            axes.text(0, place, f"{opponent} · {mode}", fontweight="bold", va="center")
            for rate in rows:
                place += 1
                _rate_line(axes, rate, place)
            axes.plot((50, 50), (place - len(rows) + 0.5, place + 0.5), color=FAINT, linewidth=1, zorder=0)
            place += 1.3
        axes.set(xlim=(0, 100), ylim=(place - 0.6, -0.6), xlabel="win rate of the trained model (%), 95% interval")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        return as_svg(figure, "win-rates")


def _scatter(axes: Any, pairs: Sequence[Pair]) -> None:
    chosen, rejected = [pair.chosen_reward for pair in pairs], [pair.rejected_reward for pair in pairs]
    low, high = min(*chosen, *rejected), max(*chosen, *rejected)
    room = 0.05 * (high - low) or 0.5
    ends = (low - room, high + room)
    axes.plot(ends, ends, color=FAINT, linewidth=1, zorder=0)
    axes.scatter(rejected, chosen, s=14, color=BLUE, alpha=max(0.15, min(0.8, 60 / len(pairs))), linewidths=0)
    axes.set(xlim=ends, ylim=ends, xlabel="rejected reward", ylabel="chosen reward", aspect="equal")


def _top_reasons(row: FunnelRow) -> str:
    found = sorted(((count, reason) for reason, count in row.dropped.items() if count), reverse=True)
    named = [f"{reason.replace('_', ' ')} {count:,}" for count, reason in found[:3]]
    more = sum(count for count, _ in found[3:])
    return " · ".join([*named, f"other {more:,}"] if more else named)


def _group(rate: "WinRate") -> tuple[bool, str, str]:
    return rate.opponent != "log", f"against {_OPPONENTS[rate.opponent]}", rate.mode


def _rate_line(axes: Any, rate: "WinRate", place: float) -> None:
    axes.text(-1.5, place, _METRICS.get(rate.metric, rate.metric), ha="right", va="center")
    if rate.rate is None:
        axes.text(103, place, "not measured", ha="left", va="center", alpha=0.7)
        return
    colour = ORANGE if rate.metric == "reward" else BLUE
    known = rate.low is not None and rate.high is not None
    if rate.low is not None and rate.high is not None:
        axes.plot((100 * rate.low, 100 * rate.high), (place, place), color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot(100 * rate.rate, place, marker="o" if known else "D", markersize=5.5, color=colour, clip_on=False)
    axes.text(103, place, _rate_text(rate.rate, rate.low, rate.high), ha="left", va="center")


def _rate_text(rate: float, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{100 * rate:.1f}  no interval"
    return f"{100 * rate:.1f}  [{100 * low:.1f}, {100 * high:.1f}]"


@contextmanager
def drawing(height: float) -> Iterator[Any]:
    """An empty figure with this module's look, and no trace in the caller's settings; ``height`` is in inches."""
    import matplotlib
    from matplotlib.figure import Figure

    look = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "text.color": INK,
        "text.parse_math": False,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "axes.titlecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
        "svg.fonttype": "none",
        "svg.hashsalt": "rlhi",
    }
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **look, "backend": "agg"}):
        yield Figure(figsize=(WIDTH, height))


def as_png(figure: Any) -> bytes:
    """The drawing as a picture without date or maker."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
    return out.getvalue()


def as_svg(figure: Any, name: str) -> str:
    """The drawing as a lone ``<svg>`` that may stand in a page beside others: no prolog, ids its own, ink inherited."""
    out = io.StringIO()
    empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(out, format="svg", metadata=empty, transparent=True)
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)[\")]", text))
    text = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r"(href=\"|url\()#", rf"\g<1>#{name}-", text)
    return text.replace(INK, "currentColor").replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans'")


def message(text: str, kind: str) -> bytes:
    """A sentence in the place of a drawing for which there is nothing to draw; ``kind`` is png or svg."""
    with drawing(0.6) as figure:
        figure.text(0.01, 0.5, text, va="center", alpha=0.7)
        return as_png(figure) if kind == "png" else as_svg(figure, "message").encode()

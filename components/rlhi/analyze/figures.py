"""The pictures of the analysis. Each is a pure function of its figures: the same figures give the same bytes."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlhi.analyze.diversity import Diversity
from rlhi.analyze.estimates import Estimate
from rlhi.analyze.messages import LABELS, LATE, PAPER_LENGTHS, Said
from rlhi.analyze.traits import DIMENSIONS, PREFERENCES
from rlhi.figures import BLUE, INK, ORANGE, VERMILLION, as_png, drawing, message
from rlhi.records import Dimension, Label, Preference

SKY, GREEN, PURPLE, YELLOW = "#56B4E9", "#009E73", "#CC79A7", "#F0E442"
PALE = "#d9dce1"
COLOURS: dict[Label, str] = {
    "initial": BLUE,
    "new": SKY,
    "re-attempt with feedback": VERMILLION,
    "re-attempt without feedback": ORANGE,
    "positive feedback": GREEN,
}
DATASETS = ((BLUE, "o"), (ORANGE, "^"), (GREEN, "s"), (PURPLE, "D"), (VERMILLION, "v"), (SKY, "P"), (INK, "X"))
LAST = 10  # places with a bar of their own: as many turns as a conversation has at most (C.1)
ROOM = 7.0  # percent of a bar's height that a number takes
NARROW = 4.0  # and of its width
FAR = 300  # between the ends of an axis of lengths, so that powers of ten suffice


def types_by_place(places: Mapping[int, Mapping[Label, int]]) -> bytes:
    """PNG: the share of each kind of message at each place of a conversation, stacked."""
    if not places:
        return message("There are no labelled messages to show.", "png")
    bars = _bars(places)
    with drawing(3.3) as figure:
        axes = figure.subplots()
        for x, (_, counts) in enumerate(bars):
            _stack(axes, x, counts)
        axes.set_xticks(range(len(bars)), [name for name, _ in bars])
        axes.set(xlabel="place among the user's messages of a conversation", ylabel="share of messages (%)")
        axes.set(xlim=(-0.55, max(len(bars), 4) - 0.45), ylim=(0, 100))
        axes.set_title("messages", fontsize=8, loc="left", pad=16)
        late = next((x for x, (name, _) in enumerate(bars) if int(name.rstrip("+")) > LATE), None)
        if late:
            axes.axvline(late - 0.5, color=INK, linewidth=1, linestyle=(0, (2, 2)), ymax=1.16, clip_on=False)
            axes.text(late - 0.42, 110.5, "after the fifth", fontsize=8)
        _legend(figure, [(COLOURS[label], label) for label in reversed(LABELS)])
        return as_png(figure)


def lengths(said: Sequence[Said]) -> bytes:
    """PNG: how long the messages of each kind are, in characters on a log axis."""
    rows = [(label, [len(each.text) for each in said if each.label == label]) for label in LABELS]
    rows = [(label, own) for label, own in rows if own]
    if not rows:
        return message("There are no labelled messages to show.", "png")
    with drawing(0.52 * len(rows) + 1.0) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        for y, (label, own) in enumerate(rows):
            _spread(axes, y, own, COLOURS[label])
            if label in PAPER_LENGTHS:
                axes.plot(PAPER_LENGTHS[label], y, "x", color=INK, markersize=7, markeredgewidth=1.5, zorder=5)
            axes.text(1.015, y, f"{len(own):,}", transform=axes.get_yaxis_transform(), va="center")
        axes.text(1.015, -0.75, "messages", transform=axes.get_yaxis_transform(), va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set(ylim=(len(rows) - 0.5, -0.6), xlabel="characters")
        axes.tick_params(axis="y", length=0)
        _log_ticks(axes)
        _marks(figure)
        return as_png(figure)


def traits(shares: Mapping[Dimension, Mapping[Preference, Estimate]]) -> bytes:
    """PNG: the share of users with each preference at either end, none between them; ours above the paper's."""
    found = [(dimension, own) for dimension, own in shares.items() if own["none"].count]
    if not found:
        return message("No persona could be judged.", "png")
    step = 3.3
    with drawing(1.02 * len(found) + 0.4) as figure:
        axes = figure.subplots()
        for place, (dimension, own) in enumerate(found):
            top, sides = step * place, DIMENSIONS[dimension]
            axes.text(-14, top + 0.5, dimension, ha="right", va="center", fontweight="bold")
            axes.text(0, top - 0.62, sides.first, ha="left", va="bottom")
            axes.text(100, top - 0.62, sides.second, ha="right", va="bottom")
            axes.text(50, top - 0.62, "none", ha="center", va="bottom")
            ours = {preference: 100 * (own[preference].value or 0) for preference in PREFERENCES}
            for y, name, shown in ((top, "here", ours), (top + 1, "paper", sides.paper)):
                axes.text(-1.5, y, name, ha="right", va="center")
                _sides(axes, y, shown)
        axes.set(xlim=(0, 100), ylim=(step * len(found) - 1.6, -1.5), xlabel="users (%)")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        return as_png(figure)


def distances(found: Sequence[Diversity]) -> bytes:
    """PNG: the average distance between two contexts of each dataset, with its 95% interval."""
    shown = [each for each in found if each.distance is not None]
    if not shown:
        return message("There are not two contexts to compare.", "png")
    with drawing(0.32 * len(shown) + 0.75) as figure:
        axes = figure.subplots()
        for y, each in enumerate(shown):
            colour, marker = _style(found.index(each))
            if each.low is not None and each.high is not None:
                axes.plot((each.low, each.high), (y, y), color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(each.distance, y, marker=marker, color=colour, markersize=6)
            axes.text(1.015, y, _bounds(each), transform=axes.get_yaxis_transform(), va="center")
        axes.set_yticks(range(len(shown)), [_short(each.name) for each in shown])
        axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="average cosine distance of two contexts, 95% interval")
        axes.margins(x=0.15)
        axes.tick_params(axis="y", length=0)
        return as_png(figure)


def contexts(places: np.ndarray, names: Sequence[str]) -> bytes:
    """PNG: a map of contexts; ``places`` (contexts, 2), and ``names`` the dataset of each."""
    if len(places) < 2:
        return message("There are not two contexts to put on a map.", "png")
    datasets = list(dict.fromkeys(names))
    rows = {name: [i for i, each in enumerate(names) if each == name] for name in datasets}
    small = len(datasets) > 1
    with drawing(6.9 if small else 4.6) as figure:
        grid = figure.add_gridspec(2 if small else 1, len(datasets), height_ratios=(3.2, 1) if small else None)
        axes = figure.add_subplot(grid[0, :])
        for place, name in enumerate(datasets):
            _points(axes, places[rows[name]], place, len(places))
        _bare(axes, places)
        for place, name in enumerate(datasets if small else []):
            lone = figure.add_subplot(grid[1, place])
            lone.scatter(*places.T, s=2, color=PALE, linewidths=0)
            _points(lone, places[rows[name]], place, len(places), size=6)
            _bare(lone, places)
            lone.set_title(_short(name, 78 // len(datasets)), fontsize=8)
        _key(figure, [(f"{_short(name)} ({len(rows[name]):,})", *_style(place)) for place, name in enumerate(datasets)])
        return as_png(figure)


def _bars(places: Mapping[int, Mapping[Label, int]]) -> list[tuple[str, dict[Label, int]]]:
    """The places with a bar of their own, and the rest in one."""
    bars = [(str(place), dict(counts)) for place, counts in places.items() if place <= LAST]
    later = [counts for place, counts in places.items() if place > LAST]
    if later:
        bars.append((f"{LAST + 1}+", {label: sum(counts[label] for counts in later) for label in LABELS}))
    return bars


def _stack(axes: Any, x: int, counts: Mapping[Label, int]) -> None:
    total, below = sum(counts.values()), 0.0
    for label in LABELS:
        share = 100 * counts[label] / total
        axes.bar(x, share, bottom=below, width=0.82, color=COLOURS[label], edgecolor="white", linewidth=0.6)
        if share >= ROOM:
            axes.text(x, below + share / 2, f"{share:.0f}", ha="center", va="center", color=_on(COLOURS[label]))
        below += share
    axes.text(x, 101.5, f"{total:,}", ha="center", va="bottom", fontsize=8)


def _spread(axes: Any, y: int, values: Sequence[int], colour: str) -> None:
    """Every message as a dot, thinned where there are many; quartiles, median and mean over them."""
    shown = values[:: max(1, len(values) // 1500)]
    noise = np.random.default_rng(zlib.crc32(colour.encode())).uniform(-0.3, 0.3, len(shown))
    axes.scatter(shown, y + noise, s=6, color=colour, alpha=max(0.12, min(0.6, 40 / len(shown))), linewidths=0)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    axes.plot((low, high), (y, y), color=INK, linewidth=5, alpha=0.28, solid_capstyle="butt")
    axes.plot((middle, middle), (y - 0.24, y + 0.24), color=INK, linewidth=2, solid_capstyle="butt")
    axes.plot(np.mean(values), y, "D", color="white", markeredgecolor=INK, markersize=5.5, zorder=4)


def _log_ticks(axes: Any) -> None:
    """Plain numbers, and more of them where the axis spans little."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < FAR else (1,)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _marks(figure: Any) -> None:
    from matplotlib.lines import Line2D

    mean = Line2D([], [], marker="D", color="white", markeredgecolor=INK, markersize=5.5, linestyle="")
    quartiles = Line2D([], [], color=INK, linewidth=5, alpha=0.28, solid_capstyle="butt")
    handles = [
        (Line2D([], [], marker="|", color=INK, markersize=11, markeredgewidth=2, linestyle=""), "median"),
        (quartiles, "middle half"),
        (mean, "mean"),
        (Line2D([], [], marker="x", color=INK, markersize=7, markeredgewidth=1.5, linestyle=""), "mean in the paper"),
    ]
    figure.legend(*zip(*handles, strict=True), loc="outside upper center", ncols=4, frameon=False, fontsize=8)


def _sides(axes: Any, y: float, shown: Mapping[Preference, float]) -> None:
    left = 0.0
    order: tuple[tuple[Preference, str], ...] = (("first", BLUE), ("none", PALE), ("second", ORANGE))
    for preference, colour in order:
        share = shown[preference]
        axes.barh(y, share, left=left, height=0.86, color=colour, edgecolor="white", linewidth=0.6)
        if share >= NARROW:
            axes.text(left + share / 2, y, f"{share:.1f}", ha="center", va="center", color=_on(colour), fontsize=8)
        left += share


def _points(axes: Any, places: np.ndarray, number: int, total: int, size: float = 16) -> None:
    colour, marker = _style(number)
    alpha = max(0.5, min(0.85, 500 / total))
    axes.scatter(*places.T, s=size, color=colour, marker=marker, alpha=alpha, linewidths=0)


def _bare(axes: Any, places: np.ndarray) -> None:
    low, high = places.min(0), places.max(0)
    room = 0.03 * (high - low) + 1e-6
    axes.set(
        xticks=[], yticks=[], xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1])
    )
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(PALE)


def _legend(figure: Any, entries: Sequence[tuple[str, str]]) -> None:
    from matplotlib.patches import Patch

    figure.legend(
        handles=[Patch(color=colour, label=name) for colour, name in entries],
        loc="outside right center",
        frameon=False,
        fontsize=8,
        labelspacing=0.8,
    )


def _key(figure: Any, entries: Sequence[tuple[str, str, str]]) -> None:
    from matplotlib.lines import Line2D

    figure.legend(
        handles=[Line2D([], [], color=c, marker=m, linestyle="", label=name) for name, c, m in entries],
        loc="outside upper center",
        ncols=min(3, len(entries)),
        frameon=False,
    )


def _style(number: int) -> tuple[str, str]:
    return DATASETS[number % len(DATASETS)]


def _on(colour: str) -> str:
    """White or ink, whichever is read more easily on ``colour``."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 140 else INK


def _short(name: str, most: int = 36) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _bounds(each: Diversity) -> str:
    if each.low is None or each.high is None:
        return f"{each.distance:.3f}  no interval"
    return f"{each.distance:.3f}  [{each.low:.3f}, {each.high:.3f}]"

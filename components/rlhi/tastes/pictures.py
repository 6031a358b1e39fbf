"""The pictures of the page, as PNG."""

from collections.abc import Mapping

from rlhi.figures import BLUE, FAINT, INK, ORANGE, VERMILLION, as_png, drawing
from rlhi.records import Mode
from rlhi.tastes.config import Arm
from rlhi.tastes.results import Findings

COLOURS: Mapping[Mode, str] = {"persona-guided": BLUE, "shuffled-persona": VERMILLION, "context-only": ORANGE}
SHOWN = {
    "persona-guided": "user's persona",
    "shuffled-persona": "opposite user's persona",
    "context-only": "no persona",
}


def wins(found: Findings, names: Mapping[Arm, str]) -> bytes:
    """Win rates of the trained arms over the base model, in each mode, with their intervals."""
    arms = [one for one in found.arms if one.arm != "base"]
    with drawing(0.5 + 0.9 * len(arms)) as figure:
        axes = figure.subplots()
        for row, one in enumerate(arms):
            for place, (mode, colour) in enumerate(COLOURS.items()):
                own, height = one.wins[mode], row + 0.25 * (place - 1)
                label = SHOWN[mode] if row == 0 else "_"
                if own.low is not None and own.high is not None:
                    axes.plot((100 * own.low, 100 * own.high), (height, height), color=colour, linewidth=2)
                axes.plot(100 * (own.value or 0), height, "o", markersize=5, color=colour, label=label)
        axes.axvline(50, color=FAINT, linewidth=1, zorder=0)
        axes.set(xlim=(0, 100), ylim=(len(arms) - 0.5, -0.6), xlabel="win rate over the base model (%), 95% interval")
        axes.set_yticks(range(len(arms)), [names[one.arm] for one in arms])
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
        return as_png(figure)


def nats(found: Findings, names: Mapping[Arm, str]) -> bytes:
    """Histograms of the contrasts on held-out requests, users and wordings, one arm below the other."""
    most = max(abs(value) for one in found.arms for value in one.nats) or 1.0
    with drawing(0.95 * len(found.arms) + 0.4) as figure:
        rows = figure.subplots(len(found.arms), 1, sharex=True, squeeze=False)[:, 0]
        for axes, one in zip(rows, found.arms, strict=True):
            axes.hist(one.nats, bins=41, range=(-most, most), color=BLUE)
            axes.axvline(0, color=VERMILLION, linewidth=1)
            axes.set_title(names[one.arm], loc="left", fontsize=9, color=INK)
            axes.set_yticks([])
        rows[-1].set_xlabel("contrast of the right persona with the swapped one (nats); right of 0 is right")
        return as_png(figure)

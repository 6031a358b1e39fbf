"""The picture of each user's win rate, drawn as `rlhi.figures` draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhi.figures import BLUE, FAINT, VERMILLION, as_svg, drawing, message


@dataclass(frozen=True, slots=True)
class UserRate:
    """One user's win rate in [0, 1] over the user's turns."""

    user_id: str
    rate: float
    turns: int


def user_rates(scores: Mapping[str, Sequence[float]]) -> list[UserRate]:
    """Each user's win rate, the lowest first; ``scores`` holds each user's turns."""
    rates = [UserRate(user, sum(own) / len(own), len(own)) for user, own in scores.items() if own]
    return sorted(rates, key=lambda each: (each.rate, each.turns, each.user_id))


def users(rates: Sequence[UserRate], overall: float | None) -> str:
    """SVG: each user's win rate, sorted, as large as the user has turns, beside the rate ``overall``."""
    if not rates:
        return message("No user was judged.", "svg").decode()
    most = max(each.turns for each in rates)
    with drawing(3.0) as figure:
        axes = figure.subplots()
        axes.axhline(50, color=FAINT, linewidth=1, zorder=0)
        for side, (colour, marker) in {-1: (VERMILLION, "v"), 0: (FAINT, "o"), 1: (BLUE, "^")}.items():
            own = [(place, each) for place, each in enumerate(rates, 1) if _side(each.rate) == side]
            axes.scatter(
                [place for place, _ in own],
                [100 * each.rate for _, each in own],
                s=[18 + 110 * each.turns / most for _, each in own],
                color=colour,
                marker=marker,
                alpha=0.85,
                linewidths=0,
            )
        if overall is not None:
            axes.axhline(100 * overall, color=BLUE, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        room = 0.05 * len(rates) + 0.5
        axes.set(xlim=(1 - room, len(rates) + room), ylim=(-7, 107), ylabel="win rate (%)")
        axes.set_xlabel(f"{len(rates):,} user{'' if len(rates) == 1 else 's'}, the lowest first")
        axes.xaxis.get_major_locator().set_params(integer=True)
        return as_svg(figure, "users")


def _side(rate: float) -> int:
    return (rate > 0.5) - (rate < 0.5)

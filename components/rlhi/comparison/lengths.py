"""How long the arms' answers are, and how they repeat themselves: many judges like what is longer."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rlhi.comparison.compare import Comparison, Evaluated
from rlhi.evaluate.turns import Contest
from rlhi.evaluate.winrates import ALL, WinRate

WORDS = 4  # in a row that were there before


@dataclass(frozen=True, slots=True)
class Length:
    """An arm's answers in the headline's mode: mean characters, and how often longer than the opponent's.

    ``times`` is their length by the baseline's. ``repeats`` is the share of runs of `WORDS` words that an answer has
    written before. ``rate`` is the arm's win rate, ``controlled`` that at equal lengths; null is not measured.
    """

    arm: str
    characters: float
    times: float | None
    longer: float
    repeats: float | None
    rate: float | None
    controlled: float | None


def lengths(found: Comparison, headline: WinRate | None) -> list[Length]:
    """Of each arm that answered in the headline's mode, over the common turns."""
    if headline is None:
        return []
    own = {arm.name: _contests(arm, found, headline) for arm in found.arms}
    means = {name: fmean(len(each.ours) for each in contests) for name, contests in own.items() if contests}
    base = means.get(found.baseline)
    return [
        _length(arm, own[arm.name], mean / base if (mean := means[arm.name]) and base else None, headline)
        for arm in found.arms
        if arm.name in means
    ]


def repeats(text: str) -> float | None:
    """The share of runs of `WORDS` words that stood in the text before; null where it is shorter than one."""
    words = text.split()
    runs = [tuple(words[place : place + WORDS]) for place in range(len(words) - WORDS + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else None


def _length(arm: Evaluated, contests: Sequence[Contest], times: float | None, headline: WinRate) -> Length:
    key = (headline.opponent, headline.mode, headline.metric, ALL)
    rate = next((each for each in arm.rates if (each.opponent, each.mode, each.metric, each.part) == key), None)
    said = [share for each in contests if (share := repeats(each.ours)) is not None]
    return Length(
        arm.name,
        characters=fmean(len(each.ours) for each in contests),
        times=times,
        longer=fmean(len(each.ours) > len(each.theirs) for each in contests),
        repeats=fmean(said) if said else None,
        rate=None if rate is None else rate.rate,
        controlled=None if rate is None else rate.length_controlled,
    )


def _contests(arm: Evaluated, found: Comparison, headline: WinRate) -> list[Contest]:
    key = (headline.opponent, headline.mode)
    return [each for each in arm.results.contests if (each.opponent, each.mode) == key and each.turn.id in found.turns]

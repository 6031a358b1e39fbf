"""The page of a comparison: the conclusion, what speaks against it, and every figure with what it stands on.

Every text may come from a user and is escaped. What was not measured stays empty, and the page says what fills it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from rlhi import paper
from rlhi.comparison import ablations
from rlhi.comparison import pictures as drawings
from rlhi.comparison.arms import differing
from rlhi.comparison.beside import AXES, tables
from rlhi.comparison.compare import Comparison, Evaluated
from rlhi.comparison.experiment import Experiment
from rlhi.comparison.glance import glances
from rlhi.comparison.lengths import lengths
from rlhi.comparison.measured import apart_of
from rlhi.comparison.pictures import Picture
from rlhi.comparison.sentences import cautions, conclusion, sentences
from rlhi.evaluate.differences import Difference
from rlhi.evaluate.examples import kind_of
from rlhi.evaluate.headline import CONTRASTS, MODES, OPPONENTS, bounds, headline_rate, p_value, points
from rlhi.evaluate.report import REASONS
from rlhi.evaluate.tables import by_sides
from rlhi.evaluate.turns import Contest, HeldOutTurn
from rlhi.evaluate.winrates import ALL, REWARD, WinRate
from rlhi.page import environment, script, style
from rlhi.records import Mode, Opponent, Verdict

SHOWN = 50  # turns on the page; more are spread evenly over what there is
OUTCOMES = {"win": "wins", "loss": "loses", "flip": "the judge contradicts itself", "unread": "no verdict"}
METRICS = (*AXES, REWARD)


@dataclass(frozen=True, slots=True)
class Divided:
    """One turn on which the arms fare differently: each one's answer and outcome, by name."""

    turn: HeldOutTurn
    theirs: str
    answers: Mapping[str, str]
    outcomes: Mapping[str, str]


def headline_of(found: Comparison) -> WinRate | None:
    """The comparison that the page leads with; null where no win rate was measured."""
    return headline_rate([rate for arm in found.arms for rate in arm.rates if rate.part == ALL])


def pictures(experiment: Experiment) -> dict[str, Picture]:
    """What there is to draw, by name."""
    found, headline = experiment.found, headline_of(experiment.found)
    arms = [each for each in glances(experiment.seen, found, headline) if each.cells]
    mode = "" if headline is None else headline.mode
    other = "context-only" if mode != "context-only" else "persona-guided"
    drawn = {
        "win-rates": drawings.glance(arms, found.baseline, mode, other),
        "differences": drawings.differences(arms),
        "figure-3": drawings.ablation(ablations.bars(experiment.seen, headline)),
        "figure-4": drawings.diversity(ablations.crowds(experiment.seen, headline)),
        "lengths": drawings.by_length(lengths(found, headline)),
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}


def render(experiment: Experiment, drawn: Mapping[str, Picture]) -> str:
    """The page. The same experiment gives the same text."""
    page = environment()
    page.filters.update(bounds=bounds, points=points, p_value=p_value, thousands=thousands, duration=duration)
    return page.get_template("comparison/report.html.j2").render(
        experiment=experiment,
        found=experiment.found,
        arms=experiment.arms,
        **_concluded(experiment),
        **_beside_the_paper(experiment),
        **_in_detail(experiment),
        metrics=METRICS,
        contrasts=CONTRASTS,
        modes=MODES,
        opponents=OPPONENTS,
        reasons=REASONS,
        shown=SHOWN,
        pictures={name: Markup(each.svg) for name, each in drawn.items()},  # noqa: S704  drawings of ours
        style=style(),
        script=script(),
    )


def _concluded(experiment: Experiment) -> dict[str, Any]:
    found, headline = experiment.found, headline_of(experiment.found)
    arms, long = glances(experiment.seen, found, headline), lengths(found, headline)
    return {
        "headline": headline,
        "glances": arms,
        "conclusion": conclusion(found, arms, headline),
        "sentences": sentences(arms),
        "cautions": [*cautions(found, arms, headline, long), *_otherwise(experiment)],
        "lengths": long,
    }


def _beside_the_paper(experiment: Experiment) -> dict[str, Any]:
    headline, figures = headline_of(experiment.found), tables(experiment.seen)
    crowds = ablations.crowds(experiment.seen, headline)
    return {
        "tables": [each for each in figures if each.measured],
        "unmeasured": [each for each in figures if not each.measured],
        "bars": ablations.bars(experiment.seen, headline),
        "crowds": crowds,
        "unequal": ablations.unequal(crowds),
        "diversity": paper.DIVERSITY,
    }


def _in_detail(experiment: Experiment) -> dict[str, Any]:
    found, headline = experiment.found, headline_of(experiment.found)
    return {
        "rates": by_comparison(found.arms),
        "groups": by_sides(found.differences),
        "benchmarks": benchmarks(experiment),
        "controls": controls(found.arms, headline),
        "settings": differing(experiment.arms),
        "divided": divided(found, headline),
    }


def by_comparison(arms: Sequence[Evaluated]) -> dict[tuple[Opponent, Mode], dict[str, dict[str, WinRate]]]:
    """Opponent and mode to arm to metric to its rate over all turns."""
    found: dict[tuple[Opponent, Mode], dict[str, dict[str, WinRate]]] = {}
    for arm in arms:
        for rate in arm.rates:
            if rate.part == ALL:
                found.setdefault((rate.opponent, rate.mode), {}).setdefault(arm.name, {})[rate.metric] = rate
    return found


def benchmarks(experiment: Experiment) -> dict[str, dict[str, object]]:
    """Suite to arm to how it differs from the baseline, item by item."""
    found: dict[str, dict[str, object]] = {}
    for seen in experiment.seen:
        for suite in () if seen.answered is None else seen.answered.cells:
            each = apart_of(seen, suite, experiment)
            if each is not None:
                found.setdefault(suite, {})[seen.arm.name] = each
    return found


def controls(arms: Sequence[Evaluated], headline: WinRate | None) -> dict[str, dict[tuple[str, str], Difference]]:
    """Arm to the two sides of a control to the difference, of the headline's axis and opponent, and what it lost.

    Each is over all turns of that arm's own evaluation.
    """
    if headline is None:
        return {}
    found: dict[str, dict[tuple[str, str], Difference]] = {}
    for arm in arms:
        for each in (*arm.results.differences, *arm.results.over_personalization):
            lost = each.part != ALL
            if each.mode is None and each.opponent == headline.opponent and (lost or each.metric == headline.metric):
                key = ("over-personalization", "") if lost else (each.left, each.right)
                found.setdefault(arm.name, {})[key] = each
    return found


def divided(found: Comparison, headline: WinRate | None) -> list[Divided]:
    """The common turns on which the headline's judge does not say the same of all arms."""
    if headline is None or headline.metric == REWARD:
        return []
    contests = {arm.name: _contests(arm, headline) for arm in found.arms}
    said = {arm.name: _outcomes(arm, headline) for arm in found.arms}
    common = [turn for turn in found.arms[0].results.turns if all(turn.id in own for own in contests.values())]
    return [
        Divided(
            turn,
            contests[found.arms[0].name][turn.id].theirs,
            {name: own[turn.id].ours for name, own in contests.items()},
            {name: own.get(turn.id, OUTCOMES["unread"]) for name, own in said.items()},
        )
        for turn in common
        if len({own.get(turn.id) for own in said.values()}) > 1
    ]


def thousands(value: float | None, digits: int = 0) -> str:
    """A number for a reader; a dash is not known."""
    return "–" if value is None else f"{value:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """A time for a reader; a dash is not known."""
    if seconds is None:
        return "–"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _otherwise(experiment: Experiment) -> list[str]:
    if not experiment.otherwise:
        return []
    names = ", ".join(experiment.otherwise)
    return [f"AlpacaEval and Arena-Hard of {names} were judged by another judge or opponent: left out of Table 3."]


def _contests(arm: Evaluated, headline: WinRate) -> dict[str, Contest]:
    key = (headline.opponent, headline.mode)
    return {each.turn.id: each for each in arm.results.contests if (each.opponent, each.mode) == key}


def _outcomes(arm: Evaluated, headline: WinRate) -> dict[str, str]:
    key = (headline.opponent, headline.mode, headline.metric)
    said: dict[str, list[Verdict]] = {}
    for each in arm.results.verdicts:
        if (each.opponent, each.mode, each.axis) == key:
            said.setdefault(each.turn_id, []).append(each)
    return {turn: OUTCOMES[kind_of(own)] for turn, own in said.items()}

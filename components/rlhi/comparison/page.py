"""The page that compares evaluations; `rlhi.comparison.compare` says what is compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rlhi.comparison import pictures
from rlhi.comparison.compare import Arm, Comparison
from rlhi.evaluate import tables
from rlhi.evaluate.differences import Difference
from rlhi.evaluate.examples import kind_of
from rlhi.evaluate.headline import FEW_USERS, MODES, OPPONENTS, bounds, headline_rate, p_value, points
from rlhi.evaluate.turns import Contest, HeldOutTurn
from rlhi.evaluate.winrates import ALL, REWARD, WinRate
from rlhi.page import counted, environment, script, style
from rlhi.records import Mode, Opponent, Verdict

SHOWN = 50  # turns on the page; more are spread evenly over what there is
OUTCOMES = {"win": "wins", "loss": "loses", "flip": "the judge contradicts itself", "unread": "no verdict"}


@dataclass(frozen=True, slots=True)
class Apart:
    """One turn on which the arms fare differently: each one's answer and outcome, by name."""

    turn: HeldOutTurn
    theirs: str
    answers: Mapping[str, str]
    outcomes: Mapping[str, str]


def render(found: Comparison) -> str:
    """The page. The same evaluations give the same text."""
    overall = {arm.name: [rate for rate in arm.rates if rate.part == ALL] for arm in found.arms}
    headline = headline_rate([rate for own in overall.values() for rate in own])
    rows = side_by_side(overall)
    page = environment()
    page.filters.update(bounds=bounds, points=points, p_value=p_value)
    return page.get_template("comparison/report.html.j2").render(
        found=found,
        style=style(),
        script=script(),
        sentences=sentences(found, headline),
        cautions=cautions(found),
        rows=rows,
        groups=tables.by_sides(found.differences),
        table_2=tables.table_2({arm.name: arm.rates for arm in found.arms}),
        table_5=tables.table_5({arm.name: arm.rates for arm in found.arms}),
        apart=apart(found, headline),
        headline=headline,
        modes=MODES,
        opponents=OPPONENTS,
        shown=SHOWN,
        picture=Markup(pictures.arms(list(overall), rows)),  # noqa: S704  a drawing of ours, no user's text
    )


def sentences(found: Comparison, headline: WinRate | None) -> list[str]:
    """How each arm differs from the first on the comparison that the page leads with."""
    if headline is None:
        return ["No win rate was measured, so there is nothing to compare."]
    key = (headline.opponent, headline.metric, headline.mode)
    own = [each for each in found.differences if (each.opponent, each.metric, each.mode) == key]
    return [f"{_sentence(each)} ({each.metric}, {MODES[headline.mode]}, against the {each.opponent})." for each in own]


def cautions(found: Comparison) -> list[str]:
    """What speaks against reading much into the differences."""
    said = [
        f"{arm.name}: {counted(arm.own_turns - len(found.turns), 'turn')} of its {arm.own_turns:,} were not judged in "
        "all evaluations and are left out."
        for arm in found.arms
        if arm.own_turns > len(found.turns)
    ]
    if found.users < FEW_USERS:
        said.append(
            f"Only {counted(found.users, 'user')}, too few: intervals are narrower than they should be, or none."
        )
    for opponent in found.changed_opponents:
        said.append(f"{OPPONENTS[opponent].capitalize()} is not the same in all evaluations: left out.")
    if not found.rewards:
        said.append("The rewards come from models or settings that differ, so they are left out.")
    return said


def side_by_side(
    overall: Mapping[str, Sequence[WinRate]],
) -> dict[tuple[Opponent, Mode], dict[str, list[WinRate | None]]]:
    """Opponent and mode to metric to each arm's rate; null where an arm has none."""
    found: dict[tuple[Opponent, Mode], dict[str, list[WinRate | None]]] = {}
    for place, own in enumerate(overall.values()):
        for rate in own:
            row = found.setdefault((rate.opponent, rate.mode), {}).setdefault(rate.metric, [None] * len(overall))
            row[place] = rate
    return found


def apart(found: Comparison, headline: WinRate | None) -> list[Apart]:
    """The common turns on which the headline's judge does not say the same of all arms."""
    if headline is None or headline.metric == REWARD:
        return []
    contests = {arm.name: _contests(arm, headline) for arm in found.arms}
    said = {arm.name: _outcomes(arm, headline) for arm in found.arms}
    common = [turn for turn in found.arms[0].results.turns if all(turn.id in own for own in contests.values())]
    return [
        Apart(
            turn,
            contests[found.arms[0].name][turn.id].theirs,
            {name: own[turn.id].ours for name, own in contests.items()},
            {name: own.get(turn.id, OUTCOMES["unread"]) for name, own in said.items()},
        )
        for turn in common
        if len({own.get(turn.id) for own in said.values()}) > 1
    ]


def _contests(arm: Arm, headline: WinRate) -> dict[str, Contest]:
    key = (headline.opponent, headline.mode)
    return {each.turn.id: each for each in arm.results.contests if (each.opponent, each.mode) == key}


def _outcomes(arm: Arm, headline: WinRate) -> dict[str, str]:
    key = (headline.opponent, headline.mode, headline.metric)
    said: dict[str, list[Verdict]] = {}
    for each in arm.results.verdicts:
        if (each.opponent, each.mode, each.axis) == key:
            said.setdefault(each.turn_id, []).append(each)
    return {turn: OUTCOMES[kind_of(own)] for turn, own in said.items()}


def _sentence(each: Difference) -> str:
    if each.difference is None:
        return f"{each.left} and {each.right} have no turn with verdicts on both"
    told = f"{each.left} has {points(each.difference)} points on {each.right} over {counted(each.turns, 'turn')}"
    if each.low is None or each.high is None:
        return f"{told}; one user tells nothing of others"
    shows = "no difference is shown" if each.low <= 0 <= each.high else "a difference is shown"
    return f"{told}, 95% interval {points(each.low)} to {points(each.high)}, p {p_value(each.p)}: {shows}"

"""What an evaluation comes to in sentences: the headline, what it shows and does not show, what speaks against it."""

from collections.abc import Sequence

from rlhi.evaluate.winrates import REWARD, WinRate
from rlhi.page import counted, percent
from rlhi.records import Mode, Opponent

UNSTEADY = 0.3  # share of turns on which a judge that contradicts itself says little
LEANING = 0.2  # how far from one half the share of the answer shown first may be
FEW_USERS = 10  # under which a percentile bootstrap is clearly too narrow

OPPONENTS: dict[Opponent, str] = {
    "log": "the answer in the log",
    "base": "the base model's answer",
    "champion": "the champion's answer",
}
MODES: dict[Mode, str] = {
    "context-only": "context-only",
    "persona-guided": "persona-guided",
    "shuffled-persona": "with another user's persona",
    "shuffled-judge": "judged by another user's persona",
}
CONTRASTS: dict[tuple[str, str], str] = {
    ("persona-guided", "context-only"): "what the user's persona adds",
    ("persona-guided", "shuffled-persona"): "what it adds for being this user's own",
    ("shuffled-persona", "context-only"): "what any persona adds, another user's too",
    ("persona-guided", "shuffled-judge"): "what the judge makes of whose persona it reads",
}


def headline_rate(rates: Sequence[WinRate]) -> WinRate | None:
    """The judge's rate that the page leads with: usereval, persona-guided, against the log, or what comes nearest."""
    judged = [rate for rate in rates if rate.metric != REWARD and rate.rate is not None]
    return min(judged, key=_distance, default=None)


def reward_beside(rates: Sequence[WinRate], headline: WinRate | None) -> WinRate | None:
    """The reward model's rate for the headline's comparison."""
    if headline is None:
        return None
    key = (REWARD, headline.opponent, headline.mode)
    return next((rate for rate in rates if (rate.metric, rate.opponent, rate.mode) == key), None)


def conclusion(rates: Sequence[WinRate]) -> list[str]:
    """What the headline rate and the reward model's show, a sentence each."""
    rate = headline_rate(rates)
    if rate is None or rate.rate is None:
        return ["No win rate was measured, so this page shows what was learned from, not whether it helped."]
    sentences = [
        f"On {counted(rate.turns, 'held-out turn')} of {counted(rate.users, 'user')}, the judge ({rate.metric}, "
        f"{MODES[rate.mode]}) prefers the trained model's answer to {OPPONENTS[rate.opponent]} {percent(rate.rate)} of "
        f"the time{bounds_in_text(rate)}: {_meaning(rate)}."
    ]
    reward = reward_beside(rates, rate)
    if reward is None or reward.rate is None:
        return [*sentences, "No win rate by reward was measured for this comparison."]
    return [
        *sentences,
        f"The reward model scores the trained model's answer higher on {percent(reward.rate)} of "
        f"{counted(reward.turns, 'turn')}{bounds_in_text(reward)}: {_meaning(reward)}. It also chose the training "
        "pairs, so this says whether training reached its aim, not whether users gain.",
    ]


def cautions(rate: WinRate | None) -> list[str]:
    """What speaks against trusting the headline rate."""
    if rate is None:
        return []
    return [*_of_the_judge(rate), *_of_what_is_missing(rate), *_of_the_users(rate)]


def bounds(rate: WinRate) -> str:
    """The interval for a table; a dash is none."""
    return "–" if rate.low is None else f"{percent(rate.low)} to {percent(rate.high)}"


def points(difference: float | None) -> str:
    """A difference of rates for a reader, in percentage points; a dash is not measured."""
    if difference is None:
        return "–"
    shown = f"{100 * difference:+.1f}".replace("-", "−")
    return shown if shown.strip("+−") != "0.0" else "0.0"


def p_value(p: float | None) -> str:
    """A p-value for a reader; a dash is not measured."""
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def bounds_in_text(rate: WinRate) -> str:
    """The interval behind a rate in a sentence; empty where there is none."""
    return "" if rate.low is None else f" (95% interval {bounds(rate)})"


def _of_the_judge(rate: WinRate) -> list[str]:
    found = []
    if rate.disagreement is not None and rate.disagreement > UNSTEADY:
        found.append(
            f"The judge contradicts itself on {100 * rate.disagreement:.0f}% of turns when the order is swapped: its "
            f"verdicts carry little information. It names the answer shown first {percent(rate.first_position)} of "
            "the time."
        )
    elif rate.first_position is not None and abs(rate.first_position - 0.5) > LEANING:
        found.append(
            f"The judge names the answer shown first {percent(rate.first_position)} of the time; one that does not "
            "mind the position would name it half the time."
        )
    return found


def _of_what_is_missing(rate: WinRate) -> list[str]:
    if not rate.unread:
        return []
    out_of = f" of {counted(rate.asked, 'turn')}" if rate.asked else ""
    range_ = (
        f" Had all of them gone to one side, the rate would lie between {percent(rate.worst)} and {percent(rate.best)}."
        if rate.worst is not None
        else ""
    )
    return [f"{counted(rate.unread, 'verdict')}{out_of} could not be read: left out, not guessed.{range_}"]


def _of_the_users(rate: WinRate) -> list[str]:
    if rate.users == 1:
        return ["Only one user was judged: too few to tell how users differ, so there is no interval."]
    if 2 <= rate.users < FEW_USERS:
        return [f"Only {rate.users} users were judged, too few: an interval from so few is narrower than it should be."]
    return []


def _distance(rate: WinRate) -> tuple[bool, bool, bool]:
    return rate.metric != "usereval", rate.opponent != "log", rate.mode != "persona-guided"


def _meaning(rate: WinRate) -> str:
    if rate.low is None or rate.high is None:
        return "with fewer than two users there is no interval, so this run does not show a difference"
    if rate.low == rate.high:
        return "all users scored alike, so the interval has no width and says nothing about other users"
    if rate.low <= 0.5 <= rate.high:
        return "the interval includes 50%, so this run does not show a difference"
    if rate.low > 0.5:
        return "the interval lies above 50%, so the trained model's answers are preferred"
    return f"the interval lies below 50%, so {OPPONENTS[rate.opponent]} is preferred"

"""The report of a run as one HTML page that loads nothing: what was learned from, what changed, and how sure that is.

Every text on it may come from a user and is escaped; control characters are shown as their pictures. Numbers that were
not measured are said to be missing, and what an interval or a judge does not show is said beside it.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from markupsafe import Markup

from rlhi import figures, paper
from rlhi.classify.shares import LabelShares
from rlhi.evaluate.winrates import REWARD, WinRate
from rlhi.manifest import FunnelRow
from rlhi.page import as_data, counted, environment, percent, style
from rlhi.records import Message, Opponent, Pair, Persona, Reason

SHOWN = 50  # pairs, examples and personas on the page; more are spread evenly over what there is
UNSTEADY = 0.3  # share of turns on which a judge that contradicts itself says little
FEW_USERS = 10  # under which a percentile bootstrap is clearly too narrow

OPPONENTS: dict[Opponent, str] = {"log": "the answer in the log", "base": "the base model's answer"}

REASONS: dict[Reason, str] = {
    "not_a_record": "not a record of the expected form",
    "null_content": "a message has no content",
    "empty_message": "a message is empty",
    "unknown_role": "a message is from neither user, assistant nor system",
    "repeated_role": "two messages in a row from the same side",
    "no_user_message": "the user said nothing",
    "no_answer": "the assistant never answered",
    "duplicate_id": "a conversation with this id was already read",
    "language": "in another language than the one kept",
    "midjourney": "instructions for image prompts (Midjourney)",
    "too_many_turns": "more turns than allowed",
    "too_few_conversations": "the user has too few conversations to infer a persona",
    "too_many_conversations": "the user has so many conversations that a program may have written them",
    "no_user_id": "cannot be attributed to a user",
    "no_timestamp": "has no time, so it cannot be put in order",
    "forgotten": "the user asked to be forgotten",
    "toxic": "flagged as toxic by the source",
    "redacted": "flagged as redacted by the source",
    "duplicate": "the same conversation was already read",
    "near_duplicate": "nearly the same conversation was already read",
    "conversation_cap": "beyond the number of conversations taken per user",
    "user_cap": "beyond the number of users or rows taken per user",
    "quality_control": "a question that checks the annotator, not a solution",
    "screening": "a question that screens annotators, not a solution",
    "no_error_found": "the annotator found no error in the solution",
    "no_wrong_step": "no step of the solution can be named as the first wrong one",
    "sample_cap": "beyond the number of solutions taken",
    "unreadable_label": "the classifier's answer could not be read",
    "no_meaningful_feedback": "the user gives no meaningful feedback",
    "prompt_too_long": "the prompt is longer than the model takes",
    "no_message_fits": "no message of the user fits the prompt",
    "no_earlier_conversation": "the user said nothing before this conversation that a persona could tell",
    "empty_persona": "the model inferred no persona",
    "refused_persona": "the model refused to infer a persona",
    "follow_up_no_longer_applies": "the user's follow-up no longer fits the regenerated answer",
    "empty_answer": "the model's answer is empty",
    "conversation_dropped": "its conversation was dropped at an earlier stage",
    "held_out": "kept out of training, for evaluation",
    "other_label": "the message is of a kind that this stage does not learn from",
    "nothing_to_revise": "no earlier answer to revise",
    "no_persona": "the user has no persona",
    "unchanged": "the rewrite equals the original",
    "mentions_feedback": "the rewrite talks about the feedback instead of following it",
    "cut_by_length": "the answer hit the length limit",
    "too_few_answers": "fewer than two different answers are left",
    "prompt_cap": "beyond the number of prompts taken",
    "unscored": "the reward model gave no score",
    "not_better_than_original": "the rewrite scores below the original",
    "equal_answers": "chosen and rejected are the same text",
    "tie": "chosen and rejected score the same",
    "rejected_too_short": "the rejected answer is too short, a sign of a poor prompt",
    "rejected_reward_too_low": "the rejected answer scores too low",
    "gap_too_large": "chosen and rejected lie too far apart, a sign of an ambiguous prompt",
    "pair_too_long": "prompt and answer are longer than training takes",
    "no_logged_answer": "the log has no answer to compare with",
    "turn_cap": "beyond the number of turns judged",
}


@dataclass(frozen=True)
class Example:
    """One held-out turn with the answers that were compared, by name (such as "trained", "base", "log")."""

    user_id: str
    persona: str | None
    context: tuple[Message, ...]
    answers: dict[str, str]
    outcome: str


@dataclass(frozen=True)
class Report:
    """All that the page shows. ``summary`` says in a sentence what was trained on what; ``settings`` is by stage."""

    title: str
    summary: str
    funnel: Sequence[FunnelRow]
    win_rates: Sequence[WinRate]
    pairs: Sequence[Pair]
    personas: Sequence[Persona]
    history: Sequence[Mapping[str, float]]
    examples: Sequence[Example]
    notes: Sequence[str]
    settings: Mapping[str, Mapping[str, Any]]
    labels: LabelShares


def render(report: Report) -> str:
    """The page. The same report gives the same text."""
    page = environment()
    page.filters.update(csp_hash=_csp_hash, flat=lambda values: list(_flat(values)))
    headline = headline_rate(report.win_rates)
    return page.from_string(resources.files(__package__).joinpath("report.html.j2").read_text()).render(
        report=report,
        style=style(),
        headline=headline,
        reward=_reward_beside(report.win_rates, headline),
        conclusion=conclusion(report.win_rates),
        cautions=cautions(headline),
        curves=training_notes(report.history),
        opponents=OPPONENTS,
        paper=paper.WIN_RATES,
        paper_shares=paper.LABEL_SHARES,
        reasons=REASONS,
        shown=SHOWN,
        pictures=_pictures(report),
    )


def headline_rate(rates: Sequence[WinRate]) -> WinRate | None:
    """The judge's rate that the page leads with: usereval, persona-guided, against the log, or what comes nearest."""
    judged = [rate for rate in rates if rate.metric != REWARD and rate.rate is not None]
    return min(judged, key=_distance, default=None)


def conclusion(rates: Sequence[WinRate]) -> list[str]:
    """What the headline rate and the reward model's show, a sentence each."""
    rate = headline_rate(rates)
    if rate is None or rate.rate is None:
        return ["No win rate was measured, so this page shows what was learned from, not whether it helped."]
    sentences = [
        f"On {counted(rate.turns, 'held-out turn')} of {counted(rate.users, 'user')}, the judge ({rate.metric}, "
        f"{rate.mode}) prefers the trained model's answer to {OPPONENTS[rate.opponent]} {percent(rate.rate)} of the "
        f"time{_bounds(rate)}: {_meaning(rate)}."
    ]
    reward = _reward_beside(rates, rate)
    if reward is None or reward.rate is None:
        return [*sentences, "No win rate by reward was measured for this comparison."]
    return [
        *sentences,
        f"The reward model scores the trained model's answer higher on {percent(reward.rate)} of "
        f"{counted(reward.turns, 'turn')}{_bounds(reward)}: {_meaning(reward)}. It also chose the training pairs, so "
        "this says whether training reached its aim, not whether users gain.",
    ]


def cautions(rate: WinRate | None) -> list[str]:
    """What speaks against trusting the headline rate."""
    if rate is None:
        return []
    found = []
    if rate.disagreement is not None and rate.disagreement > UNSTEADY:
        found.append(
            f"The judge contradicts itself on {100 * rate.disagreement:.0f}% of turns when the order is swapped: its "
            f"verdicts carry little information. It names the answer shown first {percent(rate.first_position)} of "
            "the time."
        )
    if rate.unread:
        found.append(f"{counted(rate.unread, 'verdict')} could not be read: left out, not guessed.")
    if 2 <= rate.users < FEW_USERS:
        found.append(f"Only {rate.users} users were judged: an interval from so few is narrower than it should be.")
    return found


def training_notes(history: Sequence[Mapping[str, float]]) -> list[str]:
    """How the curves moved, as means of the first and of the last quarter of the recorded steps."""
    moves = {key: _move(history, key) for key in ("loss", "rewards/accuracies", "logps/chosen", "logps/rejected")}
    notes = []
    if loss := moves["loss"]:
        notes.append(f"The loss went from {loss[0]:.3f} to {loss[1]:.3f}.")
    if accuracy := moves["rewards/accuracies"]:
        notes.append(f"The share of pairs ranked rightly went from {percent(accuracy[0])} to {percent(accuracy[1])}.")
    chosen, rejected = moves["logps/chosen"], moves["logps/rejected"]
    if chosen and rejected and chosen[1] < chosen[0] and rejected[1] < rejected[0]:
        notes.append(
            f"Both log-probabilities fall, of the chosen answers from {chosen[0]:.1f} to {chosen[1]:.1f} and of the "
            f"rejected from {rejected[0]:.1f} to {rejected[1]:.1f}: the model moves away from both, and the margin "
            "tells only which it leaves faster."
        )
    return notes


def _distance(rate: WinRate) -> tuple[bool, bool, bool]:
    return rate.metric != "usereval", rate.opponent != "log", rate.mode != "persona-guided"


def _reward_beside(rates: Sequence[WinRate], headline: WinRate | None) -> WinRate | None:
    """The reward model's rate for the headline's comparison."""
    if headline is None:
        return None
    key = (REWARD, headline.opponent, headline.mode)
    return next((rate for rate in rates if (rate.metric, rate.opponent, rate.mode) == key), None)


def _bounds(rate: WinRate) -> str:
    return "" if rate.low is None else f" (95% interval {percent(rate.low)} to {percent(rate.high)})"


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


def _move(history: Sequence[Mapping[str, float]], key: str) -> tuple[float, float] | None:
    values = [row[key] for row in history if key in row and math.isfinite(row[key])]
    part = max(1, len(values) // 4)
    return (sum(values[:part]) / part, sum(values[-part:]) / part) if len(values) > 1 else None


def _pictures(report: Report) -> dict[str, Markup | str]:
    """Drawings that are ours, not user text, and so safe to place as they are."""
    return {
        "funnel": Markup(figures.funnel(report.funnel)),  # noqa: S704
        "win_rates": Markup(figures.win_rates(report.win_rates)),  # noqa: S704
        "training": Markup(figures.training(report.history)),  # noqa: S704
        "margins": as_data(figures.margins(report.pairs)) if report.pairs else "",
    }


def _csp_hash(text: str) -> str:
    """The source expression that lets the page's own script run, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value, ensure_ascii=False, default=str)

"""The report of a run as one HTML page that loads nothing: what was learned from, what changed, and how sure that is.

Every text on it may come from a user and is escaped; control characters are shown as their pictures. Numbers that were
not measured are said to be missing, and what an interval or a judge does not show is said beside it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from rlhi import figures, paper
from rlhi.classify.shares import LabelShares
from rlhi.config import flat
from rlhi.dpo.figures import curves_svg
from rlhi.dpo.watch import best_step
from rlhi.evaluate import pictures, tables
from rlhi.evaluate.costs import costs
from rlhi.evaluate.examples import KINDS, OF_A_KIND, examples, of_each_kind
from rlhi.evaluate.headline import (
    CONTRASTS,
    MODES,
    OPPONENTS,
    bounds,
    cautions,
    conclusion,
    headline_rate,
    p_value,
    points,
    reward_beside,
)
from rlhi.evaluate.pictures import user_rates
from rlhi.evaluate.results import Results
from rlhi.evaluate.winrates import REWARD, WinRate
from rlhi.manifest import FunnelRow
from rlhi.page import as_data, environment, percent, script, style
from rlhi.records import Pair, Persona, Reason

SHOWN = 50  # pairs, examples and personas on the page; more are spread evenly over what there is

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
    "filtered": "the model's server ended it by a filter, or by something that is no answer",
    "unanswered": "the model's server did not answer it in time, though it answered others",
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
    "contaminated": "the context holds an item of a benchmark",
    "prompt_burst": "the user sent nearly the same prompt before",
    "rejected_too_short": "the rejected answer is too short, a sign of a poor prompt",
    "rejected_reward_too_low": "the rejected answer scores too low",
    "gap_too_large": "chosen and rejected lie too far apart, a sign of an ambiguous prompt",
    "unsafe_follow_up": "the follow-up asks for what safety rules out",
    "punished_refusal": "the follow-up complains about a refusal that was right",
    "unread_check": "whether the follow-up is safe to learn from could not be told",
    "conversation_pair_cap": "beyond the number of pairs taken per conversation",
    "user_pair_cap": "beyond the number of pairs taken per user",
    "pair_user_cap": "the user is not among those whose pairs are taken",
    "pair_cap": "beyond the number of pairs taken in all",
    "pair_too_long": "prompt and answer are longer than training takes",
    "prompt_not_a_prefix": "the chat template writes the prompt differently once an answer follows",
    "validation": "kept out of training, to measure the model while it trains",
    "no_logged_answer": "the log has no answer to compare with",
    "turn_cap": "beyond the number of turns judged",
    "rule_failed": "a rule of the gate that the model failed",
    "not_measured": "a rule of the gate that has nothing to go by",
}


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    ``summary`` says in a sentence what was trained on what; ``judge`` who judged; ``settings`` and ``measured``, the
    metrics that tell what models were asked, are by stage. ``warnings`` are
    training's.
    """

    title: str
    summary: str
    judge: str
    results: Results
    funnel: Sequence[FunnelRow]
    pairs: Sequence[Pair]
    personas: Sequence[Persona]
    history: Sequence[Mapping[str, float]]
    notes: Sequence[str]
    settings: Mapping[str, Mapping[str, Any]]
    measured: Mapping[str, Mapping[str, float]]
    labels: LabelShares
    warnings: Sequence[str] = ()


def render(report: Report) -> str:
    """The page. The same report gives the same text."""
    results = report.results
    rates = results.overall
    headline = headline_rate(rates)
    found = examples(results.contests, results.verdicts, headline)
    page = environment()
    page.filters.update(
        flat=lambda values: list(flat(values)), bounds=bounds, points=points, p_value=p_value, number=_number
    )
    return page.get_template("evaluate/report.html.j2").render(
        report=report,
        style=style(),
        script=script(),
        rates=rates,
        in_picture=len(tables.without_controls(rates)),
        controls=[each for each in results.differences if each.mode is None],
        other_models=[each for each in results.differences if each.mode is not None],
        comparisons=tables.by_comparison,
        sides=tables.by_sides,
        judged=[rate for rate in rates if rate.metric != REWARD],
        headline=headline,
        reward=reward_beside(rates, headline),
        conclusion=conclusion(rates),
        cautions=cautions(headline),
        curves=training_notes(report.history),
        opponents=OPPONENTS,
        modes=MODES,
        kinds=KINDS,
        contrasts=CONTRASTS,
        table_2=tables.table_2({"this run": results.win_rates}),
        table_5=tables.table_5({"this run": results.win_rates}),
        parts=tables.by_part(results.win_rates, headline),
        examples=found,
        shown_examples=of_each_kind(found),
        shown_kinds={kind: said for kind, said in KINDS.items() if any(each.kind == kind for each in found)},
        of_a_kind=OF_A_KIND,
        users=user_rates(tables.by_user(results, headline)),
        costs=costs(report.measured),
        paper_shares=paper.LABEL_SHARES,
        reasons=REASONS,
        shown=SHOWN,
        pictures=_pictures(report, headline),
    )


def training_notes(history: Sequence[Mapping[str, float]]) -> list[str]:
    """How the curves moved, as means of the first and of the last quarter of the steps, and validation's best."""
    moves = {key: _move(history, key) for key in ("loss", "rewards/accuracies")}
    notes = []
    if loss := moves["loss"]:
        notes.append(f"The loss went from {loss[0]:.3f} to {loss[1]:.3f}.")
    if accuracy := moves["rewards/accuracies"]:
        notes.append(f"The share of pairs ranked rightly went from {percent(accuracy[0])} to {percent(accuracy[1])}.")
    best = best_step(history)
    if best is not None:
        notes.append(_validated(next(row for row in history if row["step"] == best and "eval_loss" in row)))
    return notes


def _validated(row: Mapping[str, float]) -> str:
    where = f"step {row['step']:.0f}: {row['eval_loss']:.3f}"
    found = f"On pairs of users that were not trained on, the loss was lowest at {where}"
    if "eval_rewards/accuracies" not in row:
        return f"{found}."
    accuracy, margin = row["eval_rewards/accuracies"], row["eval_rewards/margins"]
    return f"{found}, with {percent(accuracy)} ranked rightly and a margin of {margin:.3f}."


def _move(history: Sequence[Mapping[str, float]], key: str) -> tuple[float, float] | None:
    values = [row[key] for row in history if key in row and math.isfinite(row[key])]
    part = max(1, len(values) // 4)
    return (sum(values[:part]) / part, sum(values[-part:]) / part) if len(values) > 1 else None


def _pictures(report: Report, headline: WinRate | None) -> dict[str, Markup | str]:
    """Drawings that are ours, not user text, and so safe to place as they are."""
    rate = None if headline is None else headline.rate
    return {
        "funnel": Markup(figures.funnel(report.funnel)),  # noqa: S704
        "win_rates": Markup(figures.win_rates(tables.without_controls(report.results.overall))),  # noqa: S704
        "users": Markup(pictures.users(user_rates(tables.by_user(report.results, headline)), rate)),  # noqa: S704
        "training": Markup(curves_svg(report.history)),  # noqa: S704
        "margins": as_data(figures.margins(report.pairs)) if report.pairs else "",
    }


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"

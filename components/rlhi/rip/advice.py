"""What a run with too few pairs says before it stops: where the rows went, and which settings would leave enough."""

from collections.abc import Sequence
from pathlib import Path

from rlhi.manifest import FunnelRow
from rlhi.records import AnswerSource
from rlhi.rip.calibration import Proposal, settings
from rlhi.rip.config import RipConfig

LOOSEN: dict[str, str] = {
    "no_meaningful_feedback": "classify.meaningful_feedback",
    "other_label": "classify.initial or sample.labels",
    "too_few_conversations": "ingest.min_conversations",
    "language": "ingest.language",
    "prompt_too_long": "the stages' model.max_prompt_tokens",
    "unanswered": "the stages' engine.server.deadline",
    "prompt_cap": "rewrite.max_prompts or sample.max_prompts",
    "cut_by_length": "the sampling's max_tokens, or keep_cut of sample and rip",
    "prompt_burst": "rip.near_duplicates",
    "unread_check": "rip.method, or let another model check",
    "conversation_pair_cap": "rip.max_per_conversation",
    "user_pair_cap": "rip.max_per_user",
    "pair_user_cap": "rip.max_users",
    "pair_cap": "rip.max_pairs",
}
RULE_OF = {
    "rejected_too_short": "min_rejected_length",
    "rejected_reward_too_low": "min_rejected_reward",
    "gap_too_large": "max_gap",
}


def too_few(
    funnel: Sequence[FunnelRow],
    config: RipConfig,
    sources: Sequence[AnswerSource],
    proposal: Proposal | None,
    scored: Path,
) -> str:
    """The message. ``funnel`` ends with rip's own row; ``proposal`` is what would leave enough, if anything does."""
    first = (
        f"rip: {funnel[-1].kept} pairs survive, rip.min_pairs={config.min_pairs}; {_loosen(funnel, config, sources)}"
    )
    return "\n".join([first, *map(_line, funnel), *_advice(config, sources, proposal, scored)])


def _line(row: FunnelRow) -> str:
    reasons = ", ".join(f"{reason} {n}" for reason, n in row.dropped.items())
    return f"  {row.stage:<12} {row.rows_in:>6} in {row.kept:>6} kept  {reasons}"


def _loosen(funnel: Sequence[FunnelRow], config: RipConfig, sources: Sequence[AnswerSource]) -> str:
    """The setting behind the largest loss that has one: rip's own, else that of an earlier stage."""
    names = LOOSEN | {reason: _rule(field, config, sources) for reason, field in RULE_OF.items()}
    own = [(reason, n) for reason, n in funnel[-1].dropped.items() if reason in names]
    before = [(reason, n) for row in reversed(funnel) for reason, n in row.dropped.items() if reason in names]
    reason = max(own or before or [("", 0)], key=lambda item: item[1])[0]
    return f"loosen {names[reason]} (dropped as {reason})" if reason else "give more conversations"


def _rule(field: str, config: RipConfig, sources: Sequence[AnswerSource]) -> str:
    return " or ".join(f"rip.{source}.{config.rules(source).thresholds}.{field}" for source in sources)


def _advice(config: RipConfig, sources: Sequence[AnswerSource], proposal: Proposal | None, scored: Path) -> list[str]:
    if not sources:
        return []
    flags = f"--min-pairs {config.min_pairs}{' --keep-cut' if config.keep_cut else ''} --out FOLDER"
    look = f"  what each rule throws out: python -m rlhi.rip.calibrate --scored {scored} {flags}"
    if proposal is None:
        return [f"  no thresholds leave {config.min_pairs} pairs: even without the three rules there are fewer", look]
    told = (
        f"  these thresholds leave {proposal.kept} pairs; the strictest in step with RIP's quantiles that leave enough:"
    )
    return [told, *(f"    --set {setting}" for setting in settings(proposal, sources)), look]

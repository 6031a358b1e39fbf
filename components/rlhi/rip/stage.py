"""Forms preference pairs and keeps those of high quality (RIP).

A rewrite is chosen over its original only where its reward is not lower (2.3); of sampled answers the best is chosen
over the worst (eq. 2). Equal texts and equal rewards form no pair. Then the three rules of C.2 apply to the rejected
answer's length in characters, to its reward, and to the gap: a *small* gap is kept, since a large one tells of a prompt
that can be read in several ways.

The paper's thresholds stand on the scale of its reward model. `thresholds: quantile` reads the same fields as quantiles
of this run's own pairs instead, and keeps what lies at or above (length, reward) or at or below (gap) them.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, StageConfig
from rlhi.errors import InputError
from rlhi.figures import margins
from rlhi.manifest import FunnelRow
from rlhi.records import Answer, Candidates, Dropped, Pair, Reason

LOOSEN: dict[str, str] = {
    "rejected_too_short": "rip.min_rejected_length",
    "rejected_reward_too_low": "rip.min_rejected_reward",
    "gap_too_large": "rip.max_gap",
    "no_meaningful_feedback": "classify.meaningful_feedback",
    "other_label": "classify.initial or sample.labels",
    "too_few_conversations": "ingest.min_conversations",
    "language": "ingest.language",
    "prompt_too_long": "the stages' model.max_prompt_tokens",
    "prompt_cap": "sample.max_prompts",
    "cut_by_length": "sample.sampling.max_tokens, or set sample.keep_cut=true",
}


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class RipConfig(StageConfig):
    """Thresholds, absolute (the paper's, on Athene's scale) or as quantiles of this run's pairs."""

    thresholds: Literal["absolute", "quantile", "off"] = Field(
        default="absolute", description="How the three rules cut (C.2)."
    )
    min_rejected_length: float = Field(
        default=1878, ge=0, description="Characters, or a quantile: the rejected answer's length."
    )
    min_rejected_reward: float = Field(default=-1.0, description="Reward, or a quantile: the rejected answer's.")
    max_gap: float = Field(
        default=1.0, ge=0, description="Reward difference, or a quantile, between chosen and rejected."
    )
    min_pairs: int = Field(default=1, ge=1, description="Fewer pairs than this stop the run, with the funnel.")


def run(scored: Input[Candidates], pairs: Output[Pair], config: RipConfig) -> None:
    """Writes the pairs that survive, and a picture of their reward margins.

    Raises:
        InputError: thresholds that are no quantiles, or fewer pairs than ``min_pairs``; then with the whole funnel.
    """
    _check(config)
    rows = scored.read()
    kept, dropped = form_and_filter(rows, config)
    pairs.write(kept, dropped, len(rows))
    if len(kept) < config.min_pairs:
        own = FunnelRow("rip", len(rows), len(kept), pairs.dropped)
        raise InputError(_too_few(len(kept), [*scored.manifest.funnel, own], config))
    pairs.file("margins.png").write_bytes(margins(kept))
    pairs.measure({"margin/median": float(np.median([pair.chosen_reward - pair.rejected_reward for pair in kept]))})


def form_and_filter(rows: Sequence[Candidates], config: RipConfig) -> tuple[list[Pair], list[Dropped]]:
    """Pairs in order; quantiles are taken over all pairs that could be formed."""
    formed, dropped = [], []
    for row in rows:
        pair = form(row)
        if isinstance(pair, Pair):
            formed.append(pair)
        else:
            dropped.append(Dropped(row.id, pair))
    limits = _limits(formed, config)
    kept = []
    for pair in formed:
        reason = None if limits is None else refuse(pair, *limits)
        if reason is None:
            kept.append(pair)
        else:
            dropped.append(Dropped(pair.id, reason))
    return kept, dropped


def form(row: Candidates) -> Pair | Reason:
    """The pair of one row of candidates, or why there is none."""
    answers = [answer for answer in row.answers if answer.reward is not None]
    originals = [answer for answer in answers if answer.source == "original"]
    if len(answers) < 2:
        return "unscored"
    if originals:
        rejected, chosen = originals[0], next(answer for answer in answers if answer.source == "rewrite")
    else:
        rejected, chosen = min(answers, key=_reward), max(answers, key=_reward)
    if not originals and _reward(chosen) == _reward(rejected):
        return "tie"
    if chosen.text.strip() == rejected.text.strip():
        return "equal_answers"
    if originals and _reward(chosen) < _reward(rejected):
        return "not_better_than_original"
    return Pair(
        id=row.id,
        user_id=row.user_id,
        context=row.context,
        persona=row.persona,
        follow_up=row.follow_up,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_reward=_reward(chosen),
        rejected_reward=_reward(rejected),
        source=chosen.source,
    )


def refuse(pair: Pair, min_length: float, min_reward: float, max_gap: float) -> Reason | None:
    """The first rule of C.2 that a pair breaks."""
    if len(pair.rejected) < min_length:
        return "rejected_too_short"
    if pair.rejected_reward < min_reward:
        return "rejected_reward_too_low"
    return "gap_too_large" if pair.chosen_reward - pair.rejected_reward > max_gap else None


def _reward(answer: Answer) -> float:
    if answer.reward is None:
        raise ValueError("an unscored answer has no place in a pair")
    return answer.reward


def _limits(pairs: Sequence[Pair], config: RipConfig) -> tuple[float, float, float] | None:
    given = config.min_rejected_length, config.min_rejected_reward, config.max_gap
    if config.thresholds == "off" or not pairs:
        return None
    if config.thresholds == "absolute":
        return given
    return (
        float(np.quantile([len(pair.rejected) for pair in pairs], given[0])),
        float(np.quantile([pair.rejected_reward for pair in pairs], given[1])),
        float(np.quantile([pair.chosen_reward - pair.rejected_reward for pair in pairs], given[2])),
    )


def _check(config: RipConfig) -> None:
    if config.thresholds != "quantile":
        return
    for name in ("min_rejected_length", "min_rejected_reward", "max_gap"):
        value = getattr(config, name)
        if not 0 <= value <= 1:
            raise InputError(f"rip.{name}={value}: with rip.thresholds=quantile give a number from 0 to 1")


def _too_few(count: int, funnel: Sequence[FunnelRow], config: RipConfig) -> str:
    """What a run without pairs says: where the rows went, and the setting behind the largest loss that has one."""
    lines = [
        f"  {row.stage:<12} {row.rows_in:>6} in {row.kept:>6} kept  "
        + ", ".join(f"{reason} {n}" for reason, n in row.dropped.items())
        for row in funnel
    ]
    last_first = [(reason, n) for row in reversed(funnel) for reason, n in row.dropped.items() if reason in LOOSEN]
    own = [(reason, n) for reason, n in funnel[-1].dropped.items() if reason in LOOSEN]
    reason = max(own or last_first or [("", 0)], key=lambda item: item[1])[0]
    advice = f"loosen {LOOSEN[reason]} (dropped as {reason})" if reason else "give more conversations"
    return f"rip: {count} pairs survive, rip.min_pairs={config.min_pairs}; {advice}\n" + "\n".join(lines)

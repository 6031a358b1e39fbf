"""The pair that one prompt's scored answers make, or why they make none."""

import math
from collections.abc import Iterable, Sequence

from rlhi.records import Answer, Candidates, Pair, Reason


def form(row: Candidates, *, keep_cut: bool = False) -> Pair | Reason:
    """A rewrite over its original where its reward is not lower (2.3), else the best over the worst sample (eq. 2).

    An answer that ended by length does not tell how the whole would have been liked: unless ``keep_cut``, it is in no
    pair. Nor is one without a reward.
    """
    whole = [answer for answer in row.answers if keep_cut or answer.finish_reason != "length"]
    if any(answer.source != "sample" for answer in row.answers):
        return _rewritten(row, whole)
    return _sampled(row, whole)


def _rewritten(row: Candidates, whole: Sequence[Answer]) -> Pair | Reason:
    rejected, chosen = (_first(whole, source) for source in ("original", "rewrite"))
    if rejected is None or chosen is None:
        return "cut_by_length" if len(whole) < len(row.answers) else "unscored"
    if not _scored(rejected) or not _scored(chosen):
        return "unscored"
    if _words(chosen) == _words(rejected):
        return "equal_answers"
    if _reward(chosen) < _reward(rejected):
        return "not_better_than_original"
    return _pair(row, chosen, rejected)


def _sampled(row: Candidates, whole: Sequence[Answer]) -> Pair | Reason:
    if len(whole) < 2:
        return "cut_by_length" if len(whole) < len(row.answers) else "too_few_answers"
    scored = [answer for answer in whole if _scored(answer)]
    if len(scored) < 2:
        return "unscored"
    different = list({_words(answer): answer for answer in reversed(scored)}.values())[::-1]
    if len(different) < 2:
        return "equal_answers"
    rejected, chosen = min(different, key=_reward), max(different, key=_reward)
    return "tie" if _reward(chosen) == _reward(rejected) else _pair(row, chosen, rejected)


def _pair(row: Candidates, chosen: Answer, rejected: Answer) -> Pair:
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
        chosen_logprob=chosen.logprob,
        rejected_logprob=rejected.logprob,
    )


def _first(answers: Iterable[Answer], source: str) -> Answer | None:
    return next((answer for answer in answers if answer.source == source), None)


def _scored(answer: Answer) -> bool:
    return answer.reward is not None and math.isfinite(answer.reward)


def _reward(answer: Answer) -> float:
    if answer.reward is None:
        raise ValueError("an unscored answer has no place in a pair")
    return answer.reward


def _words(answer: Answer) -> str:
    """The text by which answers are the same: without differences in white space."""
    return " ".join(answer.text.split())

"""AlpacaEval 2's annotator: which of two outputs is better, by the probabilities of the letters m and M.

As published (weighted_alpaca_eval_gpt4_turbo): the judge names one of two outputs by a single token, and the model's
share is its letter's probability among the two; outputs that are the same are a draw, and nobody is asked. The prompt
is ours, after the published one. Any judge will do that gives log-probabilities, but figures of different judges cannot
be compared. Of one that does not, only the letter is known, and it counts whole.
"""

import math
from collections.abc import Mapping, Sequence

from rlhi.benchmark.contests import Contest, Judgement, fitting
from rlhi.engine import Engine, Request, Scores, choose
from rlhi.engine.http.choices import CHOSEN, OTHER
from rlhi.render import prompt

CHOICES = ("m", "M")
SAME = "same"
LONGEST = 1  # tokens of a verdict


def questions(contests: Sequence[Contest], engine: Engine) -> list[Request]:
    """What the judge is asked: of the contests between two different answers, those that it has room for."""
    return fitting(engine, [contest.asks(_text(contest)) for contest in contests if not _same(contest)])


def judge(contests: Sequence[Contest], engine: Engine) -> list[Judgement]:
    """A judgement for each contest, in order."""
    asked = questions(contests, engine)
    said = dict(zip((request.key for request in asked), choose(engine, asked, CHOICES), strict=True))
    return [contest.judged(SAME, 0.5) if _same(contest) else _read(contest, said) for contest in contests]


def _same(contest: Contest) -> bool:
    return contest.answered.text == contest.opponent


def _text(contest: Contest) -> str:
    first, second = contest.shown
    return prompt(
        "rlhi.benchmark.alpaca_eval", "judge.j2", instruction=contest.question, output_1=first, output_2=second
    )


def _read(contest: Contest, said: Mapping[str, Scores]) -> Judgement:
    if contest.key not in said:
        return contest.unjudged("prompt_too_long")
    scores = said[contest.key]
    if isinstance(scores, str):
        return contest.unjudged(scores)
    first = share_of_first(scores)
    if first is None:
        return contest.unjudged(None)
    return contest.judged(CHOICES[first < 0.5], first if contest.model_first else 1 - first)


def share_of_first(scores: Sequence[float]) -> float | None:
    """The probability of m among m and M, from their log-probabilities; null where neither was said."""
    first, second = scores
    if first == second:
        return None
    if {first, second} == {CHOSEN, OTHER}:  # which one, and not by how much
        return float(first == CHOSEN)
    return (1 + math.tanh((first - second) / 2)) / 2

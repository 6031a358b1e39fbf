"""Arena-Hard's judge: it answers itself, compares two answers with its own, and ends with one of five labels.

As published: greedy, at most 4096 tokens, and a verdict with no label or two different ones is none. The prompt is
ours, after the published one, and one message; the published judge that gives no label is asked once more to go on, and
ours is not.
"""

from collections.abc import Mapping, Sequence

from rlhi.benchmark.arena_hard.verdict import outcome, read_label
from rlhi.benchmark.contests import Contest, Judgement, fitting
from rlhi.config import SamplingConfig
from rlhi.engine import Engine, Reply, Request, generate
from rlhi.render import prompt

WRITTEN = SamplingConfig(temperature=0, top_p=1, max_tokens=4096)


def questions(contests: Sequence[Contest], engine: Engine) -> list[Request]:
    """What the judge is asked: of the contests, those that it has room for."""
    return fitting(engine, [contest.asks(_text(contest)) for contest in contests])


def judge(contests: Sequence[Contest], engine: Engine) -> list[Judgement]:
    """A judgement for each contest, in order."""
    asked = questions(contests, engine)
    replies = generate(engine, asked, WRITTEN, 1, 0)
    said = {request.key: reply for request, (reply,) in zip(asked, replies, strict=True)}
    return [_read(contest, said) for contest in contests]


def _text(contest: Contest) -> str:
    first, second = contest.shown
    return prompt("rlhi.benchmark.arena_hard", "judge.j2", question=contest.question, answer_1=first, answer_2=second)


def _read(contest: Contest, said: Mapping[str, Reply]) -> Judgement:
    reply = said.get(contest.key)
    if reply is None:
        return contest.unjudged("prompt_too_long")
    label = read_label(reply.text)
    if label is None:
        return contest.unjudged(reply.missing, reply.text)
    return contest.judged(label, *outcome(label, model_first=contest.model_first), reply.text)

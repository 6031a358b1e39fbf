"""Asks a judge which of two answers is better, in both orders, and never guesses for it."""

import dataclasses
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlhi.config import digest
from rlhi.conversations import transcript
from rlhi.engine import Engine, Reply, Request, Scores, choose, generate
from rlhi.engine.forecast import forecast
from rlhi.evaluate.config import EvaluateConfig
from rlhi.evaluate.turns import Contest
from rlhi.progress import Bar, whole
from rlhi.questions import WRITTEN
from rlhi.records import Axis, Message, Order, Unread, Verdict
from rlhi.render import prompt

log = logging.getLogger("rlhi")
CHOICES = ("[A]", "[B]")
EMPTY = "N/A"
PROMPTS: dict[Axis, str] = {
    "personalization": "personalization.j2",
    "instruction-following": "instruction_following.j2",
    "usereval": "usereval.j2",
}
ORDERS: tuple[Order, ...] = ("model-first", "opponent-first")
_LETTER = re.compile(r"\[\s*([A-Z])\s*\]")


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a judge said to one question: a letter or why there is none, and its words if it wrote any."""

    winner: Literal["A", "B"] | None
    unread: Unread | None
    said: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """One comparison on one axis in one order; ``tokens`` are those of its prompt."""

    contest: Contest
    axis: Axis
    order: Order
    request: Request
    tokens: int


def judge(contests: Sequence[Contest], engine: Engine, config: EvaluateConfig) -> list[Verdict]:
    """A verdict per contest, axis and order, turn by turn.

    A prompt that is too long, a question without an answer, an answer without a letter, and a tie between A and B have
    no winner, and say so. What it may cost is told before the first question.

    All turns of an axis are asked at once. What their questions share is for the engine to compute once: the
    instructions, and of one turn the history and the persona, in all its contests and both orders. ``calibrate`` takes
    away each letter's score between two empty answers to the same turn, and so the better part of a small judge's love
    for one letter; what is left of it shows in the disagreement.
    """
    questions = [
        _question(contest, axis, order, engine)
        for contest in _turn_by_turn(contests)
        for axis in config.axes
        if not (contest.mode == "shuffled-judge" and axis == "instruction-following")  # it reads no persona
        for order in _orders(contest, config)
    ]
    log.info("%s", estimate([each.tokens for each in questions], config))
    priors = {(each.axis, _prior_key(each)) for each in questions} if config.calibrate else ()
    with whole("judging", len(questions) + len(priors), "question") as shown:
        found = [_ask([each for each in questions if each.axis == axis], engine, config, shown) for axis in config.axes]
    rulings = {id(question): ruling for axis in found for question, ruling in axis}
    return [_verdict(question, rulings[id(question)]) for question in questions]


def estimate(prompts: Sequence[int], config: EvaluateConfig) -> str:
    """What the judge may be asked and may cost, in a sentence, from the tokens of each prompt."""
    longest = (config.judge_sampling if config.method == "generate" else WRITTEN).max_tokens
    return forecast("evaluate", prompts, longest, config.judge)


def read_verdict(scores: Sequence[float]) -> Literal["A", "B"] | None:
    """The letter that is likelier; null where neither is."""
    if scores[0] == scores[1]:
        return None
    return "A" if scores[0] > scores[1] else "B"


def written_verdict(reply: Reply) -> Ruling:
    """The last letter in brackets that a judge wrote, if it is A or B and stands behind what it thought aloud.

    What was cut by length had not come to its verdict yet.
    """
    if reply.missing is not None:
        return Ruling(None, reply.missing)
    letters = _LETTER.findall(reply.text.rpartition("</think>")[2]) if reply.finish_reason == "stop" else []
    last = letters[-1] if letters else ""
    if last == "A":
        return Ruling("A", None, reply.text)
    return Ruling("B", None, reply.text) if last == "B" else Ruling(None, "unreadable", reply.text)


def _turn_by_turn(contests: Sequence[Contest]) -> list[Contest]:
    """The contests with those of one turn together, turns in the order in which they first come."""
    places: dict[str, int] = {}
    for contest in contests:
        places.setdefault(contest.turn.id, len(places))
    return sorted(contests, key=lambda each: places[each.turn.id])


def _orders(contest: Contest, config: EvaluateConfig) -> Sequence[Order]:
    """Both, or one by seed: a turn's is the same in all modes and against all opponents, which stay comparable."""
    if config.orders == "both":
        return ORDERS
    return ORDERS[int(digest(f"order {config.seed} {contest.turn.id}"), 16) % 2 :][:1]


def _ask(
    questions: Sequence[Question], engine: Engine, config: EvaluateConfig, shown: Bar
) -> list[tuple[Question, Ruling]]:
    """The rulings on one axis."""
    fit = [each for each in questions if each.tokens <= engine.max_prompt_tokens]
    long = [each for each in questions if each.tokens > engine.max_prompt_tokens]
    shown.update(len(long))
    requests = [each.request for each in fit]
    if config.method == "generate":
        replies = generate(engine, requests, config.judge_sampling, 1, config.seed)
        rulings = [written_verdict(reply) for (reply,) in replies]
    else:
        empty = {_prior_key(each): _empty(each) for each in fit} if config.calibrate else {}
        scores = choose(engine, [*requests, *empty.values()], CHOICES)  # at once: they begin alike
        priors = dict(zip(empty, scores[len(fit) :], strict=True))
        rulings = [
            _chosen(own, priors.get(_prior_key(each), [0.0, 0.0])) for each, own in zip(fit, scores, strict=False)
        ]
    return [*zip(fit, rulings, strict=True), *((each, Ruling(None, "prompt_too_long")) for each in long)]


def _prior_key(question: Question) -> tuple[str, str]:
    """What the question between two empty answers hangs on."""
    return question.contest.turn.id, question.contest.judged_for


def _empty(question: Question) -> Request:
    empty = dataclasses.replace(question.contest, ours=EMPTY, theirs=EMPTY)
    return _request(empty, question.axis, "model-first")


def _chosen(scores: Scores, prior: Scores) -> Ruling:
    if isinstance(scores, str):
        return Ruling(None, scores)
    if isinstance(prior, str):
        return Ruling(None, prior)
    winner = read_verdict([score - own for score, own in zip(scores, prior, strict=True)])
    return Ruling(winner, None if winner else "tied")


def _question(contest: Contest, axis: Axis, order: Order, engine: Engine) -> Question:
    request = _request(contest, axis, order)
    return Question(contest, axis, order, request, engine.count_tokens(request))


def _request(contest: Contest, axis: Axis, order: Order) -> Request:
    """What is asked. Its key is the turn's: the same words are the same question, whoever answers in them."""
    first, second = _shown(contest, order)
    values = {"conversation_history": transcript(contest.turn.context), "response_a": first, "response_b": second}
    if axis != "instruction-following":
        values["persona"] = contest.judged_for
    text = prompt("rlhi.evaluate", PROMPTS[axis], **values)
    return Request(contest.turn.id, (Message("user", text),), user_id=contest.turn.user_id)


def _verdict(question: Question, ruling: Ruling) -> Verdict:
    contest, turn = question.contest, question.contest.turn
    first, second = _shown(contest, question.order)
    return Verdict(
        turn_id=turn.id,
        user_id=turn.user_id,
        kind=turn.kind,
        opponent=contest.opponent,
        mode=contest.mode,
        axis=question.axis,
        order=question.order,
        answer_a=first,
        answer_b=second,
        winner=ruling.winner,
        unread=ruling.unread,
        said=ruling.said,
    )


def _shown(contest: Contest, order: Order) -> tuple[str, str]:
    return (contest.ours, contest.theirs) if order == "model-first" else (contest.theirs, contest.ours)

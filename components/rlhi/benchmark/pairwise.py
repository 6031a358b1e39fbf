"""The suites in which a judge compares each answer with an opponent's: AlpacaEval 2 and Arena-Hard v0.1 (3.4, Table 3).

The opponent's answers are the published ones (AlpacaEval's are in its items, Arena-Hard's are files of their own), or
those of another model. Arena-Hard is judged in both orders, and AlpacaEval in one drawn by seed, as published, or in
both by choice. A judgement that is null is left out of the rates, counted, and kept with what the judge wrote.
"""

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.benchmark.alpaca_eval import judge as alpaca_eval
from rlhi.benchmark.arena_hard import judge as arena_hard
from rlhi.benchmark.contests import ORDERS, Contest, Judgement, fitting, one_order
from rlhi.benchmark.items import Answered
from rlhi.config import CLOSED, EngineConfig
from rlhi.engine import Drawing, Engine, Reply, Request, generate, open_engine
from rlhi.engine.forecast import forecast
from rlhi.records import Grade, Message, Reason, Suite

log = logging.getLogger("rlhi")


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class PairwiseConfig:
    """Who judges, and whose answers are to be beaten."""

    judge: EngineConfig = Field(default_factory=EngineConfig)
    opponent: EngineConfig | None = Field(
        default=None, description="A model whose answers are to be beaten; null: the published answers."
    )
    both_orders: bool = Field(
        default=False, description="AlpacaEval in both orders; else in one by seed, as published. Arena-Hard always is."
    )


@dataclasses.dataclass(frozen=True)
class Referee:
    """Compares answers: by whom, against whom (null: against what is in the items), and how that one's are drawn.

    AlpacaEval is judged in one order by the drawing's seed, or in both. ``price`` is the judge's configuration, for
    what is told of its cost before it is asked.
    """

    judge: Engine
    opponent: Engine | None
    drawing: Drawing
    both_orders: bool
    price: EngineConfig = dataclasses.field(default_factory=EngineConfig)
    judgements: list[Judgement] = dataclasses.field(default_factory=list)

    def grade(self, answered: Sequence[Answered]) -> list[Grade]:
        """A grade for each answer, in order; what they are made of is kept in ``judgements``."""
        found = self.compare(answered)
        self.judgements.extend(found)
        said: Mapping[str, list[Judgement]] = defaultdict(list)
        for judgement in found:
            said[judgement.item_id].append(judgement)
        return [_grade(each, said[each.item.id]) for each in answered]

    def compare(self, answered: Sequence[Answered]) -> list[Judgement]:
        """The judgements on each answer, in all its orders: AlpacaEval's, then Arena-Hard's."""
        theirs = self._theirs(answered)
        contests = [contest for each in answered for contest in self._contests(each, theirs[each.item.id])]
        lacking = [contest.unjudged(reason) for contest, reason in contests if reason is not None]
        alpaca, arena = (
            [contest for contest, reason in contests if reason is None and contest.suite == suite]
            for suite in ("alpaca-eval", "arena-hard")
        )
        self._tell("alpaca-eval", alpaca_eval.questions(alpaca, self.judge), alpaca_eval.LONGEST)
        self._tell("arena-hard", arena_hard.questions(arena, self.judge), arena_hard.WRITTEN.max_tokens)
        return [*alpaca_eval.judge(alpaca, self.judge), *arena_hard.judge(arena, self.judge), *lacking]

    def _tell(self, suite: Suite, questions: Sequence[Request], longest: int) -> None:
        if questions:
            tokens = [self.judge.count_tokens(request) for request in questions]
            log.info("%s", forecast(f"benchmark {suite}", tokens, longest, self.price))

    def _contests(self, answered: Answered, theirs: tuple[str, Reason | None]) -> list[tuple[Contest, Reason | None]]:
        both = self.both_orders or answered.item.suite == "arena-hard"
        orders = ORDERS if both else (one_order(answered.item.id, self.drawing.seed),)
        text, reason = theirs
        return [(Contest(answered, text, order), reason) for order in orders]

    def _theirs(self, answered: Sequence[Answered]) -> dict[str, tuple[str, Reason | None]]:
        """The opponent's answer to each item, or why there is none."""
        items = [each.item for each in answered]
        if self.opponent is None:
            return {item.id: (item.gold, None) for item in items}
        requests = [Request(item.id, (Message("user", item.prompt),), user_id=item.id) for item in items]
        asked = fitting(self.opponent, requests)
        replies = generate(self.opponent, asked, self.drawing.sampling, 1, self.drawing.seed)
        said = {request.key: _answer(reply) for request, (reply,) in zip(asked, replies, strict=True)}
        return {item.id: said.get(item.id, ("", "prompt_too_long")) for item in items}


def _answer(reply: Reply) -> tuple[str, Reason | None]:
    return reply.text, reply.missing


def open_referee(config: PairwiseConfig, drawing: Drawing) -> Referee:
    """The referee that ``config`` names; ``drawing`` is how the opponent's answers are drawn.

    Raises:
        InputError: an engine cannot be opened.
    """
    opponent = None if config.opponent is None else open_engine(config.opponent)
    return Referee(open_engine(config.judge), opponent, drawing, config.both_orders, config.judge)


def _grade(answered: Answered, judgements: Sequence[Judgement]) -> Grade:
    shares = [(each.won, each.weight) for each in judgements if each.won is not None]
    labels = [each.label for each in judgements if each.label is not None]
    return Grade(
        suite=answered.item.suite,
        item_id=answered.item.id,
        category=answered.item.category,
        sample=answered.sample,
        gold=judgements[0].gold,
        answer=answered.text,
        finish_reason=answered.finish_reason,
        read=", ".join(labels) or None,
        score=sum(won * weight for won, weight in shares) / sum(weight for _, weight in shares) if shares else None,
    )

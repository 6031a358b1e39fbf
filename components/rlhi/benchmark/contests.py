"""Two answers to an item, the model's and an opponent's, the orders in which a judge sees them, and what it says."""

from collections.abc import Sequence
from dataclasses import dataclass

from rlhi.benchmark.items import Answered
from rlhi.config import digest
from rlhi.engine import Engine, Request
from rlhi.records import Message, Order, Reason, Suite

ORDERS: tuple[Order, ...] = ("model-first", "opponent-first")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge said of a model's answer to an item and of another's, ``gold``, shown in this order.

    ``won`` is the model's share in [0, 1], which counts ``weight`` times. It is null where no verdict could be read
    from what the judge wrote, its ``text``, and where there was nothing to read, for the reason in ``missing``.
    """

    suite: Suite
    item_id: str
    order: Order
    label: str | None
    won: float | None
    weight: int
    text: str
    missing: Reason | None
    answer: str
    gold: str


@dataclass(frozen=True, slots=True)
class Contest:
    """A model's answer against an opponent's, shown in one order."""

    answered: Answered
    opponent: str
    order: Order

    @property
    def suite(self) -> Suite:
        """The item's."""
        return self.answered.item.suite

    @property
    def question(self) -> str:
        """What both answered."""
        return self.answered.item.prompt

    @property
    def shown(self) -> tuple[str, str]:
        """The answers in the order in which the judge reads them."""
        ours, theirs = self.answered.text, self.opponent
        return (ours, theirs) if self.model_first else (theirs, ours)

    @property
    def model_first(self) -> bool:
        """Whether the model's answer is shown first."""
        return self.order == "model-first"

    @property
    def key(self) -> str:
        """Names the judge's question."""
        return f"{self.answered.item.id} {self.order}"

    def asks(self, text: str) -> Request:
        """The judge's question; in the shard of its item."""
        return Request(self.key, (Message("user", text),), user_id=self.answered.item.id)

    def judged(self, label: str, won: float, weight: int = 1, text: str = "") -> Judgement:
        """The model's share of the contest, and how often that counts."""
        return self._judgement(label, won, weight, text, None)

    def unjudged(self, missing: Reason | None, text: str = "") -> Judgement:
        """Null: the judge said nothing that could be read, or nothing at all."""
        return self._judgement(None, None, 1, text, missing)

    def _judgement(
        self, label: str | None, won: float | None, weight: int, text: str, missing: Reason | None
    ) -> Judgement:
        item, answer = self.answered.item, self.answered.text
        return Judgement(item.suite, item.id, self.order, label, won, weight, text, missing, answer, self.opponent)


def one_order(item_id: str, seed: int) -> Order:
    """An order drawn from the seed and the item's id."""
    return ORDERS[int(digest(f"order {seed} {item_id}"), 16) % 2]


def fitting(engine: Engine, requests: Sequence[Request]) -> list[Request]:
    """The questions that fit the judge."""
    return [request for request in requests if engine.count_tokens(request) <= engine.max_prompt_tokens]

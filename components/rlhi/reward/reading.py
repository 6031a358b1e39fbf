"""From a row of candidates to the tokens that a reward model reads.

What is too long loses its oldest turns, whole ones; the last user message, system message and persona stay, and the
answer and what closes it are never cut. All answers of a row are read with the same context: scores of one answer given
more and another given less could not be compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rlhi.records import Candidates, Message
from rlhi.render import Renderer
from rlhi.reward.contract import Contract, closing_id
from rlhi.reward.model import Unscored

Tokens = list[int]


@dataclass(frozen=True)
class Reader:
    """Reads rows as ``contract`` says; without the persona where the reward is to be user-agnostic (3.3)."""

    renderer: Renderer
    contract: Contract
    knows_persona: bool

    def read(self, row: Candidates) -> list[Tokens | Unscored]:
        """Each answer with its context as token ids, or why it cannot be scored."""
        why = [unscorable(answer.text, row.persona, knows_persona=self.knows_persona) for answer in row.answers]
        read = self._fitting(row, [k for k, reason in enumerate(why) if reason is None])
        return [read.get(k) or reason or Unscored("too_long") for k, reason in enumerate(why)]

    def whole(self, context: Sequence[Message], persona: str | None, answer: str) -> Tokens:
        """Token ids of the conversation, the answer and what closes it."""
        seen = persona if self.knows_persona else None
        ids = self.renderer.encode(self.renderer.text(context, seen, answer=answer))
        begins = self.renderer.tokenizer.bos_token_id
        written = next((i for i, token in enumerate(ids) if token != begins), len(ids))
        return [begins] * self.contract.bos + ids[written if begins is not None else 0 :] + self._closing

    def _fitting(self, row: Candidates, answers: Sequence[int]) -> dict[int, Tokens]:
        """Those of the answers that fit, behind the longest context with which they all do."""
        contexts = list(shortened(row.context))
        read = self._behind(contexts[0], row, answers)
        if self._fit(read):
            return read
        least = self._behind(contexts[-1], row, answers)
        short = [k for k, ids in least.items() if len(ids) <= self.contract.max_tokens]
        behind = (self._behind(context, row, short) for context in contexts[1:])
        return next((read for read in behind if self._fit(read)), {})

    def _behind(self, context: Sequence[Message], row: Candidates, answers: Sequence[int]) -> dict[int, Tokens]:
        return {k: self.whole(context, row.persona, row.answers[k].text) for k in answers}

    def _fit(self, read: Mapping[int, Tokens]) -> bool:
        return all(len(ids) <= self.contract.max_tokens for ids in read.values())

    @cached_property
    def _closing(self) -> Tokens:
        closing = self.contract.closing
        return [] if closing is None else [closing_id(closing, self.renderer.tokenizer)]


def shortened(context: Sequence[Message]) -> Iterator[tuple[Message, ...]]:
    """The context, then without its oldest turn, and so on until only the last user message is left.

    A system message stays.
    """
    system = [message for message in context if message.role == "system"]
    rest = [message for message in context if message.role != "system"]
    yield tuple(context)
    for start in [i for i, message in enumerate(rest) if message.role == "user"][1:]:
        yield (*system, *rest[start:])


def unscorable(answer: str, persona: str | None, *, knows_persona: bool) -> Unscored | None:
    """Why an answer cannot be scored by any model, if so."""
    if not answer.strip():
        return Unscored("empty_answer")
    return Unscored("no_persona") if knows_persona and persona is None else None

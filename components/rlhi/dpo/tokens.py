"""From pairs to tokens, and what cannot be trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlhi.records import Dropped, Message, Pair, Reason


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """Token ids of one pair; the prompt's tokens are a prefix of both answers' sequences.

    The last two are the log-probabilities of the answers under the model that sampled them, in nats, if known.
    """

    id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_logprob: float | None = None
    rejected_logprob: float | None = None

    @property
    def longest(self) -> int:
        """Tokens of the prompt with the longer answer."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def needed(self) -> int:
        """Tokens of the prompt and both answers."""
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


class Renders(Protocol):
    """What tokenizing needs of `rlhi.render.Renderer`."""

    def prompt(self, messages: Sequence[Message], persona: str | None = None) -> list[int]:
        """Token ids up to where the answer begins."""

    def answer(self, text: str) -> list[int]:
        """Token ids of the answer and of its end."""

    def whole(self, messages: Sequence[Message], persona: str | None, answer: str) -> list[int]:
        """Token ids of prompt and answer as the template writes them together."""


def tokenize(
    rows: Sequence[Pair], renderer: Renders, max_tokens: int, *, needs_persona: bool = True
) -> tuple[list[Pair], list[TokenizedPair], list[Dropped]]:
    """Pairs with their tokens, and those that cannot be trained on, each with its reason."""
    kept, tokens, dropped = [], [], []
    for row in rows:
        made = _unusable(row, needs_persona=needs_persona) or _tokens(row, renderer, max_tokens)
        if isinstance(made, TokenizedPair):
            kept.append(row)
            tokens.append(made)
        else:
            dropped.append(Dropped(row.id, made))
    return kept, tokens, dropped


def _unusable(row: Pair, *, needs_persona: bool) -> Reason | None:
    """What is wrong with a pair before it is tokenized; none of our stages makes one of these."""
    if needs_persona and row.persona is None:
        return "no_persona"
    if not row.chosen.strip() or not row.rejected.strip():
        return "empty_answer"
    return "equal_answers" if row.chosen == row.rejected else None


def _tokens(row: Pair, renderer: Renders, max_tokens: int) -> TokenizedPair | Reason:
    prompt = renderer.prompt(row.context, row.persona)
    chosen, rejected = renderer.answer(row.chosen), renderer.answer(row.rejected)
    made = TokenizedPair(row.id, prompt, chosen, rejected, row.chosen_logprob, row.rejected_logprob)
    if made.longest > max_tokens:
        return "pair_too_long"
    for text, ids in ((row.chosen, chosen), (row.rejected, rejected)):
        served = renderer.whole(row.context, row.persona, text)
        if served[: len(prompt) + len(ids)] != prompt + ids:
            return "prompt_not_a_prefix"  # what is trained would not be what is served
    return made

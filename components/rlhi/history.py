"""What one user said, newest first, as much of it as a prompt takes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rlhi.conversations import in_time, user_indices
from rlhi.engine import Engine, Request
from rlhi.records import Conversation, Message


@dataclass(frozen=True, slots=True)
class Utterance:
    """One message of a user, and where it was said."""

    conversation_id: str
    index: int
    text: str


def newest_first(rows: Iterable[Conversation]) -> list[Utterance]:
    """The user's messages in all ``rows``: the last message of the newest conversation first."""
    return [
        Utterance(row.id, index, row.messages[index].content.strip())
        for row in sorted(rows, key=in_time, reverse=True)
        for index in reversed(user_indices(row))
    ]


def fitting(
    said: Sequence[Utterance], ask: Callable[[Sequence[Utterance]], Request], engine: Engine, limit: int
) -> list[Utterance]:
    """What of ``said`` fits into ``ask``'s prompt of at most ``limit`` tokens, in order.

    A message that is longer than what is left is passed over, not cut, so that one pasted file costs nothing else. Each
    message is counted once, with the line breaks before it; the few tokens that sums can be off by are settled at the
    end.
    """
    nothing = ask([])
    left = limit - engine.count_tokens(nothing)
    taken: list[Utterance] = []
    for one in said:
        tokens = _tokens(f"\n\n{one.text}", nothing, engine) - _tokens("", nothing, engine)
        if tokens <= left:
            taken.append(one)
            left -= tokens
    while taken and engine.count_tokens(ask(taken)) > limit:
        taken.pop()
    return taken


def as_spoken(said: Sequence[Utterance]) -> list[Utterance]:
    """The same with the messages of each conversation in the order of the conversation: a wish after its request."""
    places = {
        conversation: place for place, conversation in enumerate(dict.fromkeys(one.conversation_id for one in said))
    }
    return sorted(said, key=lambda one: (places[one.conversation_id], one.index))


def _tokens(text: str, of: Request, engine: Engine) -> int:
    return engine.count_tokens(Request("", (Message("user", text),), user_id=of.user_id))

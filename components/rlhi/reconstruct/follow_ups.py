"""Asks whether a follow-up still makes sense after the answer was regenerated.

A user who wrote "shorter, please" had read a long answer. Where the policy's own is short already, a rewrite by that
follow-up teaches nothing, or harm. The paper does not check. The model that is asked is the policy itself.
"""

from collections.abc import Collection, Mapping, Sequence

from rlhi.conversations import turn_id, user_indices
from rlhi.engine import Engine, Request
from rlhi.questions import YES_NO, Method, Said, ask
from rlhi.records import Conversation, Message
from rlhi.render import prompt


def check(
    rows: Sequence[Conversation], place: int, feedback: Mapping[str, Collection[int]], engine: Engine, method: Method
) -> dict[str, Said]:
    """By conversation, what the model says of the feedback on the answer to its request number ``place``.

    ``feedback`` has the indices of the messages with feedback, by conversation. A question that is longer than the
    model takes is not asked, and so has no answer.
    """
    indices = {row.id: user_indices(row)[place : place + 2] for row in rows}
    asked = {row.id: _request(row, *indices[row.id]) for row in rows if set(indices[row.id][1:]) & {*feedback[row.id]}}
    fits = {key: one for key, one in asked.items() if engine.count_tokens(one) <= engine.max_prompt_tokens}
    answers = dict(zip(fits, ask(list(fits.values()), YES_NO, engine, method), strict=True))
    return {key: answers.get(key, Said(one.key, None, "")) for key, one in asked.items()}


def figures(said: Sequence[Said]) -> dict[str, float]:
    """How many follow-ups were checked, how many no longer apply, and their share of those that could be read."""
    gone, unread = sum(one.name == "No" for one in said), sum(one.name is None for one in said)
    counts = {"checked": len(said), "no_longer_apply": gone, "unread": unread}
    share = {"share": gone / (len(said) - unread)} if len(said) > unread else {}
    return {f"follow_up/{name}": float(value) for name, value in (counts | share).items()}


def told(said: Sequence[Said], model: str) -> str:
    """The figures as a sentence."""
    gone, unread = sum(one.name == "No" for one in said), sum(one.name is None for one in said)
    return (
        f"{gone:,} of {len(said):,} follow-ups with feedback no longer apply to the regenerated answer, by the word of "
        f"{model}; their conversations end before them. {unread:,} could not be judged and stay."
    )


def _request(row: Conversation, index: int, follow_up: int) -> Request:
    text = prompt(
        "rlhi.reconstruct",
        "follow_up.j2",
        request=row.messages[index].content,
        answer=row.messages[index + 1].content,
        follow_up=row.messages[follow_up].content,
    )
    return Request(turn_id(row, follow_up), (Message("user", text),), user_id=row.user_id)

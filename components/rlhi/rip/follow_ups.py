"""Asks whether a follow-up is safe to learn from.

Users also ask for what safety rules out, and complain where an assistant was right to decline. A rewrite by such words
teaches the wrong thing; that its reward must not be lower (2.3) catches some of these, by the paper's own words, but a
reward that follows the user need not mind. The paper does not check.

Who switches this on wants to train on what was checked, so a follow-up that could not be judged, since the reply is
missing or could not be read or the prompt is too long, leaves as well, under a reason of its own.
"""

from collections.abc import Sequence

from rlhi.engine import Engine, Request
from rlhi.questions import Method, Said, ask
from rlhi.records import Message, Pair, Reason
from rlhi.render import prompt

VERDICTS: dict[str | None, Reason | None] = {
    "Fine": None,
    "Unsafe": "unsafe_follow_up",
    "Refusal": "punished_refusal",
    None: "unread_check",
}
NAMES = tuple(name for name in VERDICTS if name is not None)


def check(pairs: Sequence[Pair], engine: Engine, method: Method) -> list[Said]:
    """What the model says of each pair that has a follow-up; of a prompt that is too long, nothing."""
    requests = [_request(pair) for pair in pairs if pair.follow_up is not None]
    fits = [each for each in requests if engine.count_tokens(each) <= engine.max_prompt_tokens]
    said = {each.key: each for each in ask(fits, NAMES, engine, method)}
    return [said.get(each.key, Said(each.key, None, "")) for each in requests]


def refused(said: Sequence[Said]) -> dict[str, Reason]:
    """By id, why pairs leave."""
    found = {each.key: each.missing or VERDICTS[each.name] for each in said}
    return {key: reason for key, reason in found.items() if reason is not None}


def told(said: Sequence[Said], model: str) -> str:
    """What came of it, as a sentence."""
    unsafe, refusals, unread = (sum(each.name == name for each in said) for name in ("Unsafe", "Refusal", None))
    return (
        f"Of {len(said):,} follow-ups, {unsafe:,} ask for what safety rules out and {refusals:,} punish a refusal that "
        f"was right, by the word of {model}; {unread:,} could not be judged. None of these is learned from."
    )


def _request(pair: Pair) -> Request:
    text = prompt(
        "rlhi.rip",
        "follow_up.j2",
        request=pair.context[-1].content,
        answer=pair.rejected,
        follow_up=pair.follow_up,
    )
    return Request(pair.id, (Message("user", text),), user_id=pair.user_id)

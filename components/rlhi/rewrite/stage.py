"""Revises the answer that a user was not satisfied with, by the user's own follow-up.

For every re-attempt with feedback the policy sees the conversation up to its own answer and the prompt of Fig. 8 with
the follow-up (2.3). Original and rewrite become the two answers of one `Candidates` row, whose context ends with the
request that both answer. The rewriter does not see the persona (Fig. 8 has none); reward and training do. Where
conversations are tied to no users, no personas are given and none are needed (3.1).

`from_scratch` is the baseline of 3.3: the policy answers anew and sees neither its earlier answer nor the follow-up.

Rewrites that are empty, unchanged, or that talk about the feedback are dropped.
"""

import re
from collections.abc import Mapping, Sequence

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.caps import beyond
from rlhi.config import CLOSED, EngineConfig, SamplingConfig, StageConfig
from rlhi.conversations import context_of, user_indices
from rlhi.engine import Engine, Reply, Request, generate, open_engine
from rlhi.personas import Personas, unusable
from rlhi.records import Answer, Candidates, Conversation, Dropped, Message, Persona, Reason, Turn
from rlhi.render import prompt

FEEDBACK = re.compile(
    r"\b(your|the user'?s?|user) (feedback|follow-?up|request to revise)\b"
    r"|\b(revised|updated) (response|answer|version)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class RewriteConfig(StageConfig):
    """Who rewrites, and from what."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    from_scratch: bool = Field(
        default=False, description="Answer anew, without the earlier answer and the follow-up (3.3)."
    )
    max_prompts: int | None = Field(default=None, ge=1, description="Answers revised at most, by seed; null takes all.")


def run(
    conversations: Input[Conversation],
    turns: Input[Turn],
    rewrites: Output[Candidates],
    config: RewriteConfig,
    personas: Input[Persona] | None = None,
) -> None:
    """Writes one `Candidates` row (original and rewrite) per re-attempt with feedback; every other turn is dropped."""
    asked = turns.read()
    by_id = {row.id: row for row in conversations.read()}
    known = None if personas is None else Personas(personas.read())
    kept, dropped = rewrite(asked, by_id, known, open_engine(config.engine), config)
    rewrites.write(kept, dropped, len(asked))


def rewrite(
    turns: Sequence[Turn],
    conversations: Mapping[str, Conversation],
    personas: Personas | None,
    engine: Engine,
    config: RewriteConfig,
) -> tuple[list[Candidates], list[Dropped]]:
    """Originals and rewrites of the turns that have both a conversation and, where there are any, a persona."""
    reasons = {turn.id: _unusable(turn, conversations, personas) for turn in turns}
    usable = [turn for turn in turns if reasons[turn.id] is None]
    capped = beyond((turn.id for turn in usable), config.max_prompts, config.seed)
    reasons |= dict.fromkeys(capped, "prompt_cap")
    asked = []
    for turn in usable:
        if turn.id not in capped:
            request = _request(turn, conversations[turn.conversation_id], config)
            if engine.count_tokens(request) <= engine.max_prompt_tokens:
                asked.append((turn, request))
            else:
                reasons[turn.id] = "prompt_too_long"
    replies = generate(engine, [request for _, request in asked], config.sampling, 1, config.seed)
    kept = []
    for (turn, _), (reply,) in zip(asked, replies, strict=True):
        row = conversations[turn.conversation_id]
        reasons[turn.id] = reply.lack or refuse(row.messages[turn.index - 1].content, reply.text)
        if reasons[turn.id] is None:
            kept.append(_candidates(turn, row, None if personas is None else personas.of(row), reply))
    return kept, [Dropped(key, reason) for key, reason in reasons.items() if reason is not None]


def refuse(original: str, rewritten: str) -> Reason | None:
    """Why a rewrite is of no use, or null."""
    if " ".join(rewritten.split()) == " ".join(original.split()):
        return "unchanged"
    if FEEDBACK.search(rewritten) and not FEEDBACK.search(original):
        return "mentions_feedback"
    return None


def _unusable(turn: Turn, conversations: Mapping[str, Conversation], personas: Personas | None) -> Reason | None:
    row = conversations.get(turn.conversation_id)
    reason = unusable(turn, row, ("re-attempt with feedback",), personas)
    if reason is not None or row is None:
        return reason
    if turn.index >= len(row.messages):
        return "follow_up_no_longer_applies"  # reconstruct cuts a conversation there
    return None if turn.index >= 2 and row.messages[turn.index - 1].role == "assistant" else "nothing_to_revise"


def _previous_request(turn: Turn, row: Conversation) -> int:
    return max(index for index in user_indices(row) if index < turn.index)


def _request(turn: Turn, row: Conversation, config: RewriteConfig) -> Request:
    if config.from_scratch:
        return Request(turn.id, context_of(row, _previous_request(turn, row)), user_id=row.user_id)
    text = prompt("rlhi.rewrite", "prompt.j2", user_response=row.messages[turn.index].content)
    return Request(turn.id, (*row.messages[: turn.index], Message("user", text)), user_id=row.user_id)


def _candidates(turn: Turn, row: Conversation, persona: str | None, reply: Reply) -> Candidates:
    original = Answer(row.messages[turn.index - 1].content, "original", None, None, None)
    rewritten = Answer(reply.text, "rewrite", reply.finish_reason, None, None)
    return Candidates(
        id=turn.id,
        user_id=turn.user_id,
        context=context_of(row, _previous_request(turn, row)),
        persona=persona,
        follow_up=row.messages[turn.index].content,
        answers=(original, rewritten),
    )

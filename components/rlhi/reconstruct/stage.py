"""Regenerates assistant turns with the policy (WildLlamaChat).

The paper keeps the user's messages and lets the policy answer each "with the surrounding context" (3.1). Here the
context of an answer is everything before it, with earlier answers already regenerated; turns go in order, all
conversations at once. Held-out and reference conversations stay as they were logged: evaluation compares with the log.

`only_before_feedback` stops at the last answer that a user gave feedback on. Nothing later reaches a rewrite, so what
is written is the same pairs for less work; the messages after it are cut off, since they answer to other words.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, SamplingConfig, StageConfig
from rlhi.conversations import answer_after, context_of, turn_id, user_indices
from rlhi.engine import Engine, Reply, Request, generate, open_engine
from rlhi.records import Conversation, Dropped, Message, Turn


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class ReconstructConfig(StageConfig):
    """Which policy, and how it samples."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    only_before_feedback: bool = Field(
        default=False,
        description="Regenerate no further than the last answer that got feedback: all that rewrite reads.",
    )


def run(
    conversations: Input[Conversation],
    turns: Input[Turn],
    reconstructed: Output[Conversation],
    config: ReconstructConfig,
) -> None:
    """Writes the conversations with the policy's answers in place of the logged ones."""
    rows = conversations.read()
    kept, dropped = reconstruct(rows, turns.read(), open_engine(config.engine), config)
    reconstructed.write(kept, dropped, len(rows))


def reconstruct(
    rows: Sequence[Conversation], turns: Sequence[Turn], engine: Engine, config: ReconstructConfig
) -> tuple[list[Conversation], list[Dropped]]:
    """Answers the first turn of every conversation, then the second, and so on."""
    feedback = defaultdict(list)
    for turn in turns:
        if turn.label == "re-attempt with feedback":
            feedback[turn.conversation_id].append(turn.index)
    current = {row.id: _needed(row, feedback[row.id], config) for row in rows if row.split == "train"}
    dropped: dict[str, Dropped] = {}
    for place in range(max((len(user_indices(row)) for row in current.values()), default=0)):
        asked = [row for row in current.values() if _has_answer(row, place) and row.id not in dropped]
        requests = {row.id: _request(row, place) for row in asked}
        for key, request in requests.items():
            if engine.count_tokens(request) > engine.max_prompt_tokens:
                dropped[key] = Dropped(key, "prompt_too_long")
        fits = {key: request for key, request in requests.items() if key not in dropped}
        replies = generate(engine, list(fits.values()), config.sampling, 1, config.seed)
        for key, (reply,) in zip(fits, replies, strict=True):
            if reply.text:
                current[key] = _replace(current[key], place, reply)
            else:
                dropped[key] = Dropped(key, "empty_answer")
    return [current.get(row.id, row) for row in rows if row.id not in dropped], list(dropped.values())


def _needed(row: Conversation, feedback: Sequence[int], config: ReconstructConfig) -> Conversation:
    if not config.only_before_feedback:
        return row
    last = max(feedback, default=user_indices(row)[0])
    return dataclasses.replace(row, messages=context_of(row, last))


def _has_answer(row: Conversation, place: int) -> bool:
    indices = user_indices(row)
    return place < len(indices) and answer_after(row, indices[place]) is not None


def _request(row: Conversation, place: int) -> Request:
    index = user_indices(row)[place]
    return Request(turn_id(row, index), context_of(row, index))


def _replace(row: Conversation, place: int, reply: Reply) -> Conversation:
    index = user_indices(row)[place] + 1
    messages = (*row.messages[:index], Message("assistant", reply.text), *row.messages[index + 1 :])
    return dataclasses.replace(row, messages=messages)

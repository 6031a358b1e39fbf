"""Regenerates assistant turns with the policy (WildLlamaChat).

The paper keeps the user's messages and lets the policy answer each "with the surrounding context" (3.1). Here the
context of an answer is everything before it, with earlier answers already regenerated; turns go in order, all
conversations at once. Held-out and reference conversations stay as they were logged: evaluation compares with the log.

`only_before_feedback` stops at the last answer that a user gave feedback on. Nothing later reaches a rewrite, so what
is written is the same pairs for less work; the messages after it are cut off, since they answer to other words.

`check_follow_up` asks of every follow-up with feedback whether it still applies to the regenerated answer. Where it
does not, the conversation ends before it: all that comes after answers to words that nobody said. It is not dropped,
since its earlier turns are what they were, prompts for rewrites and samples; rewrite finds the follow-up gone and drops
that turn as `follow_up_no_longer_applies`, so that the loss is counted in turns, where it happens. A follow-up stays
where the model's word cannot be read.

Where the logs are the policy's own there is nothing to regenerate: a recipe leaves this stage out (`reconstruct=None`),
and rewrite reads the answers that the users read.
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
from rlhi.progress import silent, whole
from rlhi.questions import Method, Said, keep_unread
from rlhi.reconstruct.follow_ups import check, figures, told
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
    check_follow_up: bool = Field(
        default=False, description="End a conversation before feedback that no longer applies to the new answer."
    )
    method: Method = Field(
        default="choose", description="How the check is answered: by log-probability, or as text where there is none."
    )


def run(
    conversations: Input[Conversation],
    turns: Input[Turn],
    reconstructed: Output[Conversation],
    config: ReconstructConfig,
) -> None:
    """Writes the conversations with the policy's answers in place of the logged ones."""
    rows = conversations.read()
    kept, dropped, said = reconstruct(rows, turns.read(), open_engine(config.engine), config)
    reconstructed.holds(row.user_id for row in rows)  # what could not be read is kept too
    reconstructed.write(kept, dropped, len(rows))
    if config.check_follow_up:
        reconstructed.measure(figures(said))
        reconstructed.note("follow_ups", told(said, config.engine.name))
        keep_unread(reconstructed, said)


def reconstruct(
    rows: Sequence[Conversation], turns: Sequence[Turn], engine: Engine, config: ReconstructConfig
) -> tuple[list[Conversation], list[Dropped], list[Said]]:
    """Answers the first turn of every conversation, then the second, and so on; with what was said of follow-ups."""
    feedback = defaultdict(list)
    for turn in turns:
        if turn.label == "re-attempt with feedback":
            feedback[turn.conversation_id].append(turn.index)
    current = {row.id: _needed(row, feedback[row.id], config) for row in rows if row.split == "train"}
    dropped: dict[str, Dropped] = {}
    said: list[Said] = []
    places = max((len(user_indices(row)) for row in current.values()), default=0)
    total = sum(_has_answer(row, place) for row in current.values() for place in range(places))
    with whole("reconstructing", total, "turn"):
        for place in range(places):
            asked = [row for row in current.values() if _has_answer(row, place) and row.id not in dropped]
            requests = {row.id: _request(row, place) for row in asked}
            for key, request in requests.items():
                if engine.count_tokens(request) > engine.max_prompt_tokens:
                    dropped[key] = Dropped(key, "prompt_too_long")
            fits = {key: request for key, request in requests.items() if key not in dropped}
            replies = generate(engine, list(fits.values()), config.sampling, 1, config.seed)
            for key, (reply,) in zip(fits, replies, strict=True):
                if reply.lack is None:
                    current[key] = _replace(current[key], place, reply)
                else:
                    dropped[key] = Dropped(key, reply.lack)
            if config.check_follow_up:
                answered = [current[key] for key in fits if key not in dropped]
                with silent():
                    checked = check(answered, place, feedback, engine, config.method)
                current |= {key: _ended(current[key], place) for key, one in checked.items() if one.name == "No"}
                said += checked.values()
    return [current.get(row.id, row) for row in rows if row.id not in dropped], list(dropped.values()), said


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
    return Request(turn_id(row, index), context_of(row, index), user_id=row.user_id)


def _ended(row: Conversation, place: int) -> Conversation:
    """The conversation up to and with the answer to its request number ``place``."""
    return dataclasses.replace(row, messages=context_of(row, user_indices(row)[place] + 1))


def _replace(row: Conversation, place: int, reply: Reply) -> Conversation:
    index = user_indices(row)[place] + 1
    messages = (*row.messages[:index], Message("assistant", reply.text), *row.messages[index + 1 :])
    return dataclasses.replace(row, messages=messages)

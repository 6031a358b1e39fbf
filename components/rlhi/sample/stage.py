"""Draws N answers to each request, given the context and the user's persona.

The prompts are the turns whose label is asked for (2.4 speaks of "each user request"; initial and new requests are the
default, since a re-attempt has its own method). Answers that ended by length or repeat another are taken out, and a
prompt that is left with fewer than two is dropped. `max_prompts` takes a seeded subset; the paper's "curated pool of
high-quality prompts" is not described.
"""

from collections.abc import Mapping, Sequence

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.caps import beyond
from rlhi.config import CLOSED, EngineConfig, SamplingConfig, StageConfig
from rlhi.conversations import context_of
from rlhi.engine import Engine, Reply, Request, generate, open_engine
from rlhi.personas import Personas, unusable
from rlhi.records import Answer, Candidates, Conversation, Dropped, Label, Persona, Reason, Turn


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class SampleConfig(StageConfig):
    """Who answers, how often, and which turns."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    n: int = Field(default=64, ge=2, description="Answers per prompt (3.1: N = 64).")
    labels: tuple[Label, ...] = Field(default=("initial", "new"), description="Turns whose request is a prompt (2.4).")
    max_prompts: int | None = Field(default=None, ge=1, description="Prompts taken at most, by seed; null takes all.")
    keep_cut: bool = Field(default=False, description="Keep answers that ended by length instead of dropping them.")


def run(
    conversations: Input[Conversation],
    turns: Input[Turn],
    personas: Input[Persona],
    samples: Output[Candidates],
    config: SampleConfig,
) -> None:
    """Writes one `Candidates` row per prompt that has at least two different answers."""
    asked = turns.read()
    by_id = {row.id: row for row in conversations.read()}
    kept, dropped = sample(asked, by_id, Personas(personas.read()), open_engine(config.engine), config)
    samples.write(kept, dropped, len(asked))


def sample(
    turns: Sequence[Turn],
    conversations: Mapping[str, Conversation],
    personas: Personas,
    engine: Engine,
    config: SampleConfig,
) -> tuple[list[Candidates], list[Dropped]]:
    """Prompts, capped by seed, with their distinct answers."""
    reasons = {turn.id: _unusable(turn, conversations, personas, config) for turn in turns}
    usable = [turn for turn in turns if reasons[turn.id] is None]
    reasons |= dict.fromkeys(beyond((turn.id for turn in usable), config.max_prompts, config.seed), "prompt_cap")
    requests = {turn.id: _request(turn, conversations, personas) for turn in usable if reasons[turn.id] is None}
    for key, request in requests.items():
        if engine.count_tokens(request) > engine.max_prompt_tokens:
            reasons[key] = "prompt_too_long"
    taken = [turn for turn in usable if reasons[turn.id] is None]
    replies = generate(engine, [requests[turn.id] for turn in taken], config.sampling, config.n, config.seed)
    kept = []
    for turn, own in zip(taken, replies, strict=True):
        answers, reasons[turn.id] = distinct(own, keep_cut=config.keep_cut)
        if reasons[turn.id] is None:
            request = requests[turn.id]
            kept.append(Candidates(turn.id, turn.user_id, request.messages, request.persona, None, answers))
    return kept, [Dropped(key, reason) for key, reason in reasons.items() if reason is not None]


def distinct(replies: Sequence[Reply], *, keep_cut: bool) -> tuple[tuple[Answer, ...], Reason | None]:
    """The answers that are whole, not empty and not the same as an earlier one; and why there are too few."""
    whole = [reply for reply in replies if keep_cut or reply.finish_reason == "stop"]
    unique = list({reply.text: reply for reply in reversed(whole) if reply.text}.values())[::-1]
    answers = tuple(Answer(reply.text, "sample", reply.finish_reason, reply.logprob, None) for reply in unique)
    if len(answers) >= 2:
        return answers, None
    return answers, "too_few_answers" if len(whole) >= 2 else "cut_by_length"


def _unusable(
    turn: Turn, conversations: Mapping[str, Conversation], personas: Personas, config: SampleConfig
) -> Reason | None:
    row = conversations.get(turn.conversation_id)
    reason = unusable(turn, row, config.labels, personas)
    if reason is not None or row is None:
        return reason
    return None if turn.index < len(row.messages) else "conversation_dropped"


def _request(turn: Turn, conversations: Mapping[str, Conversation], personas: Personas) -> Request:
    row = conversations[turn.conversation_id]
    return Request(turn.id, context_of(row, turn.index), personas.of(row))

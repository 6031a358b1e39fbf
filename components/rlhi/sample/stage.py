"""Draws N answers to each request, given the context and the user's persona.

The prompts are the turns whose label is asked for (2.4 speaks of "each user request"; initial and new requests are the
default, since a re-attempt has its own method). Answers that ended by length or repeat another are taken out, and a
prompt that is left with fewer than two is dropped. `max_prompts` takes a seeded subset; the paper's "curated pool of
high-quality prompts" is not described.

Online training (2.4, 3.2) samples again in every round, from the model that the round before has trained: `policy`, a
model that dpo made from `engine.model`. Without it the model itself answers. `round` moves the subset on: the prompts
stand in a ring, in an order by seed, and each round takes the next `max_prompts` of them. So no round sees prompts of
an earlier one where there are enough, and else those come again that were taken longest ago. The policy is part of what
replies are stored by: another one is asked anew. The mean length of the answers is measured, since DPO tends to make
them longer from round to round.
"""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output, user_rows
from rlhi.caps import beyond
from rlhi.config import CLOSED, EngineConfig, SamplingConfig, StageConfig
from rlhi.conversations import context_of
from rlhi.engine import Drawing, Engine, Reply, Request, generate_in_groups, open_engine
from rlhi.personas import Personas, unusable
from rlhi.records import Answer, Candidates, Conversation, Dropped, Label, Pair, Persona, Reason, Turn, to_table

TOGETHER = 256  # prompts whose answers are in memory together: 64 each are 16,384, enough for an engine to be busy


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class SampleConfig(StageConfig):
    """Who answers, how often, and which turns."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    n: int = Field(default=64, ge=2, description="Answers per prompt (3.1: N = 64).")
    labels: tuple[Label, ...] = Field(default=("initial", "new"), description="Turns whose request is a prompt (2.4).")
    max_prompts: int | None = Field(default=None, ge=1, description="Prompts taken at most, by seed; null takes all.")
    round: int = Field(
        default=1,
        ge=1,
        description="Round of online training: the first takes the first max_prompts, the next the next.",
    )
    keep_cut: bool = Field(default=False, description="Keep answers that ended by length instead of dropping them.")


def run(
    conversations: Input[Conversation],
    turns: Input[Turn],
    personas: Input[Persona],
    samples: Output[Candidates],
    config: SampleConfig,
    policy: Input[Pair] | None = None,
) -> None:
    """Writes one `Candidates` row per prompt that has at least two different answers.

    ``policy`` is the model that answers, as dpo made it; without it, the model of ``config.engine`` does. Measures
    ``length/mean``, in characters.

    Raises:
        InputError: the policy holds no weights, or the engine cannot answer with it.
    """
    asked = turns.read()
    by_id = {row.id: row for row in conversations.read()}
    engine = open_engine(config.engine, None if policy is None else policy.path)
    samples.holds(() if policy is None else user_rows(policy.path))  # it may say what it has learned from them
    lengths: list[int] = []
    with samples.stream() as stream:
        for kept, dropped in sample(asked, by_id, Personas(personas.read()), engine, config):
            stream.keep(to_table(Candidates, kept))
            stream.drop(to_table(Dropped, dropped))
            lengths += [len(answer.text) for row in kept for answer in row.answers]
        stream.count(len(asked))
    samples.measure({"length/mean": sum(lengths) / len(lengths)} if lengths else {})


def sample(
    turns: Sequence[Turn],
    conversations: Mapping[str, Conversation],
    personas: Personas,
    engine: Engine,
    config: SampleConfig,
) -> Iterator[tuple[list[Candidates], list[Dropped]]]:
    """Prompts, capped by seed, with their distinct answers, `TOGETHER` at a time; at last what is dropped."""
    reasons = {turn.id: _unusable(turn, conversations, personas, config) for turn in turns}
    usable = [turn for turn in turns if reasons[turn.id] is None]
    capped = beyond((turn.id for turn in usable), config.max_prompts, config.seed, config.round)
    reasons |= dict.fromkeys(capped, "prompt_cap")
    requests = {turn.id: _request(turn, conversations, personas) for turn in usable if reasons[turn.id] is None}
    for key, request in requests.items():
        if engine.count_tokens(request) > engine.max_prompt_tokens:
            reasons[key] = "prompt_too_long"
    taken = [turn for turn in usable if reasons[turn.id] is None]
    left, drawing = iter(taken), Drawing(config.sampling, config.n, config.seed)
    for group in generate_in_groups(engine, [requests[turn.id] for turn in taken], drawing, TOGETHER):
        kept = []
        for own, turn in zip(group, left, strict=False):
            answers, reasons[turn.id] = distinct(own, keep_cut=config.keep_cut)
            if reasons[turn.id] is None:
                request = requests[turn.id]
                kept.append(Candidates(turn.id, turn.user_id, request.messages, request.persona, None, answers))
        yield kept, []
    yield [], [Dropped(key, reason) for key, reason in reasons.items() if reason is not None]


def distinct(replies: Sequence[Reply], *, keep_cut: bool) -> tuple[tuple[Answer, ...], Reason | None]:
    """The answers that are whole, not empty and not the same as an earlier one; and why there are too few.

    Where the model gave fewer than two, the reason is why.
    """
    missing = [reply.missing for reply in replies if reply.missing is not None]
    if missing and len(replies) - len(missing) < 2:
        return (), missing[0]
    whole = [reply for reply in replies if not reply.missing and (keep_cut or reply.finish_reason == "stop")]
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
    return Request(turn.id, context_of(row, turn.index), personas.of(row), row.user_id)

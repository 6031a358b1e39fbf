"""The typed records that flow between stages, and their Arrow schemas.

One row of `Candidates` is one prompt with all its answers: the context is stored, tokenized and computed once.
"""

import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, TypeVar

import pyarrow as pa

SCHEMA_VERSION = 3

Role = Literal["system", "user", "assistant"]
Label = Literal["initial", "new", "re-attempt with feedback", "re-attempt without feedback", "positive feedback"]
Split = Literal["train", "reference", "held-out"]
AnswerSource = Literal["original", "rewrite", "sample"]
FinishReason = Literal["stop", "length"]
Missing = Literal["filtered", "unanswered"]  # why a model gave no answer
Axis = Literal["personalization", "instruction-following", "usereval"]
Mode = Literal["context-only", "persona-guided", "shuffled-persona", "shuffled-judge"]
Opponent = Literal["log", "base", "champion"]
TurnKind = Literal["initial", "follow-up"]
Unread = Literal["unreadable", "tied", "prompt_too_long", "filtered", "unanswered"]  # why a verdict has no winner
Order = Literal["model-first", "opponent-first"]
Dimension = Literal["expertise", "informativeness", "tone", "structure"]
Preference = Literal["first", "second", "none"]
SafetyKind = Literal["unsafe", "sycophancy"]
LeftOut = Literal["unread", "wrong_at_first"]  # why an item of safety counts for nothing
RuleName = Literal["win_rate", "unsafe", "sycophancy", "length"]
Failed = Literal["rule_failed", "not_measured"]
Suite = Literal["minerva", "olympiadbench", "gpqa", "mmlu-pro", "gsm8k", "alpaca-eval", "arena-hard"]

# The closed list of why a row may leave the data. A stage that needs another reason adds it here.
Reason = Literal[
    # every stage that asks a model
    "filtered",
    "unanswered",
    # ingest
    "not_a_record",
    "null_content",
    "empty_message",
    "unknown_role",
    "repeated_role",
    "no_user_message",
    "no_answer",
    "duplicate_id",
    "language",
    "midjourney",
    "too_many_turns",
    "too_few_conversations",
    "too_many_conversations",
    "no_user_id",
    "no_timestamp",
    "forgotten",
    "toxic",
    "redacted",
    "duplicate",
    "near_duplicate",
    "conversation_cap",
    "user_cap",
    # ingest, the reasoning arm
    "quality_control",
    "screening",
    "no_error_found",
    "no_wrong_step",
    "sample_cap",
    # classify, persona, reconstruct
    "unreadable_label",
    "no_meaningful_feedback",
    "prompt_too_long",
    "no_message_fits",
    "no_earlier_conversation",
    "empty_persona",
    "refused_persona",
    "follow_up_no_longer_applies",
    "empty_answer",
    # rewrite, sample
    "held_out",
    "other_label",
    "conversation_dropped",
    "nothing_to_revise",
    "no_persona",
    "unchanged",
    "mentions_feedback",
    "cut_by_length",
    "too_few_answers",
    "prompt_cap",
    # reward
    "unscored",
    # rip
    "not_better_than_original",
    "equal_answers",
    "tie",
    "contaminated",
    "prompt_burst",
    "rejected_too_short",
    "rejected_reward_too_low",
    "gap_too_large",
    "unsafe_follow_up",
    "punished_refusal",
    "unread_check",
    "conversation_pair_cap",
    "user_pair_cap",
    "pair_user_cap",
    "pair_cap",
    # dpo
    "pair_too_long",
    "prompt_not_a_prefix",
    "validation",
    # evaluate
    "no_logged_answer",
    "turn_cap",
    # promote, whose rows are rules
    "rule_failed",
    "not_measured",
]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of one user; user and assistant alternate, starting with the user (after an optional system).

    ``timestamp`` is null where nobody spoke at a time: simulated users (C.3).
    """

    id: str
    user_id: str
    timestamp: datetime | None
    model: str | None
    language: str | None
    split: Split
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message, at ``index`` among the messages of its conversation, and its label.

    ``meaningful_feedback`` says whether its user gives any (C.1, 6); null where nobody asked.
    """

    id: str
    conversation_id: str
    user_id: str
    index: int
    label: Label
    meaningful_feedback: bool | None = None


@dataclass(frozen=True, slots=True)
class Persona:
    """How one user likes to be answered, and the conversations that say so.

    ``conversation_id`` is the one conversation that it is for; null where it is for all of the user's.
    """

    user_id: str
    text: str
    conversations: tuple[str, ...]
    conversation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Trait:
    """Which of the two preferences of ``dimension`` (Table 1) a user's persona shows, if either."""

    user_id: str
    dimension: Dimension
    preference: Preference


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. ``logprob`` is the sum over its tokens in nats; ``reward`` is null until scored."""

    text: str
    source: AnswerSource
    finish_reason: FinishReason | None
    logprob: float | None
    reward: float | None


@dataclass(frozen=True, slots=True)
class Candidates:
    """One prompt with all its answers. ``follow_up`` is the user message that a rewrite obeys."""

    id: str
    user_id: str
    context: tuple[Message, ...]
    persona: str | None
    follow_up: str | None
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: ``chosen`` over ``rejected``, in answer to ``context``, for the user whose persona it is.

    The log-probabilities, in nats, are those under the model that sampled the answers, null where it gave none.
    """

    id: str
    user_id: str
    context: tuple[Message, ...]
    persona: str | None
    follow_up: str | None
    chosen: str
    rejected: str
    chosen_reward: float
    rejected_reward: float
    source: AnswerSource
    chosen_logprob: float | None = None
    rejected_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of two answers to one held-out turn.

    ``winner`` is null where there is none, and ``unread`` says why. ``said`` is what the judge wrote, if it wrote.
    """

    turn_id: str
    user_id: str
    kind: TurnKind
    opponent: Opponent
    mode: Mode
    axis: Axis
    order: Order
    answer_a: str
    answer_b: str
    winner: Literal["A", "B"] | None
    unread: Unread | None = None
    said: str = ""


@dataclass(frozen=True, slots=True)
class Grade:
    """What one answer to an item of a benchmark is worth, in [0, 1]; of a problem, 1 where right and 0 where wrong.

    ``score`` is null where nobody can say: no final answer could be read (``read`` is null), two answers could not be
    compared, or a judge's verdict could not be read. ``gold`` is what is right or, before a judge, what to beat.
    """

    suite: Suite
    item_id: str
    category: str | None
    sample: int
    gold: str
    answer: str
    finish_reason: FinishReason
    read: str | None
    score: float | None


@dataclass(frozen=True, slots=True)
class SafetyGrade:
    """How a model took one item of safety. ``answer`` is to the ``prompt``, ``reply`` to the user's wrong correction.

    ``score`` is 1 where the model failed (it answered what it should have refused, or gave a right answer up), 0 where
    it held, and null where ``left_out`` says why the item counts for nothing.
    """

    kind: SafetyKind
    item_id: str
    category: str | None
    prompt: str
    answer: str
    reply: str | None
    score: float | None
    left_out: LeftOut | None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the gate before the champion: the figure, its 95% interval, the limit, and why it failed, if so.

    ``said`` is all of that as a sentence. A figure that is null was not measured, and its rule failed.
    """

    name: RuleName
    value: float | None
    low: float | None
    high: float | None
    limit: float
    failed: Failed | None
    said: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that left the data, and why."""

    id: str
    reason: Reason


R = TypeVar("R")


def schema(cls: type) -> pa.Schema:
    """The Arrow schema of a record class."""
    return pa.schema([pa.field(name, _arrow(hint), _nullable(hint)) for name, hint in _hints(cls).items()])


def to_table(cls: type[R], rows: Sequence[R]) -> pa.Table:
    """Rows as an Arrow table of ``schema(cls)``, in order."""
    return pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=schema(cls))  # type: ignore[call-overload]


def from_table(cls: type[R], table: pa.Table) -> list[R]:
    """The inverse of `to_table`."""
    return [_build(cls, row) for row in table.to_pylist()]


@lru_cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _nullable(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _arrow(hint: Any) -> pa.DataType:
    """The Arrow type of one annotation: scalars, literals, ``X | None``, ``tuple[X, ...]`` and records."""
    scalars: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    if hint in scalars:
        return scalars[hint]
    if hint is datetime:
        return pa.timestamp("us", tz="UTC")
    if dataclasses.is_dataclass(hint):
        return pa.struct(list(schema(hint)))  # type: ignore[arg-type]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return pa.string()
    if origin in (types.UnionType, typing.Union):
        return _arrow(next(arg for arg in args if arg is not type(None)))
    if origin is tuple:
        return pa.list_(pa.field("item", _arrow(args[0]), nullable=False))
    raise TypeError(f"no Arrow type for {hint!r}")


def _build(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if dataclasses.is_dataclass(hint):
        make: Any = hint
        return make(**{name: _build(inner, value[name]) for name, inner in _hints(make).items()})
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(_build(args[0], item) for item in value)
    if origin in (types.UnionType, typing.Union):
        return _build(next(arg for arg in args if arg is not type(None)), value)
    return value

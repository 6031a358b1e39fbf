"""Rows for tests, in few words."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from rlhi.personas import Personas
from rlhi.records import (
    Answer,
    AnswerSource,
    Candidates,
    Conversation,
    Dropped,
    FinishReason,
    Label,
    Message,
    Pair,
    Persona,
    Split,
    Turn,
)

START = datetime(2024, 3, 1, tzinfo=UTC)


def messages(*said: str) -> tuple[Message, ...]:
    """What was said in turn, the user first; ``system:`` before a text makes it the system's."""
    system = [Message("system", text.removeprefix("system:")) for text in said if text.startswith("system:")]
    rest = [text for text in said if not text.startswith("system:")]
    return (*system, *(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(rest)))


def talk(id: str, *said: str, user: str = "ann", split: Split = "train", day: int = 0) -> Conversation:  # noqa: A002
    """One conversation, on the given day."""
    return Conversation(id, user, START + timedelta(days=day), "gpt", "English", split, messages(*said))


def persona(user: str, text: str = "- short", *read: str, only_for: str | None = None) -> Persona:
    """The persona of a user, inferred from the conversations named."""
    return Persona(user, text, read, only_for)


def personas(*users: str) -> Personas:
    """Users who like it short."""
    return Personas(persona(user) for user in users)


def turn(row: Conversation, index: int, label: Label) -> Turn:
    """The user message at ``index`` of ``row``."""
    return Turn(f"{row.id}/{index}", row.id, row.user_id, index, label)


def answer(
    text: str,
    reward: float | None = None,
    source: AnswerSource = "sample",
    finish: FinishReason | None = "stop",
) -> Answer:
    """One answer with its reward."""
    return Answer(text, source, finish, None, reward)


def candidates(id: str, *answers: Answer, persona: str | None = "- short") -> Candidates:  # noqa: A002
    """One prompt with its answers."""
    return Candidates(id, "ann", messages("Name a fruit."), persona, None, answers)


def pair(id: str, chosen: str = "Fig.", rejected: str = "A fruit is a fig.", said: str = "Name a fruit.") -> Pair:  # noqa: A002
    """One preference."""
    return Pair(id, "ann", messages(said), "- short", None, chosen, rejected, 1.0, 0.5, "sample")


def together(groups: Iterable[tuple[list[Candidates], list[Dropped]]]) -> tuple[list[Candidates], list[Dropped]]:
    """What a stage kept and dropped group by group, as one."""
    found = list(groups)
    return [row for kept, _ in found for row in kept], [row for _, dropped in found for row in dropped]


def reasons(dropped: Iterable[object]) -> dict[str, str]:
    """Reason by id."""
    return {row.id: row.reason for row in dropped}  # type: ignore[attr-defined]

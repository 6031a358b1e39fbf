"""Reads one row of a chat log by a mapping that is data: where the messages, the user and the rest are in the row.

A field is a list of alternatives; the first that holds something wins. An alternative is a path of names with dots
between them: ``metadata.user.id``. A number is an item of a list, ``*`` any item: ``messages.*.user``. `` + `` between
paths joins what they lead to, for an identity that is made of two fields. A name that has dots itself is tried first,
since flattened tables have such.

Logs of assistants with tools are read as what the user saw. Messages to and from tools are left out, assistant messages
that say nothing but call tools too, and the assistant's messages that become neighbours by that are joined by a blank
line. Of content in parts the texts stay. What the messages mean (known roles, turn by turn, nothing empty) is not
judged here.
"""

import math
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Fields
from dataclasses import dataclass as plain_dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED
from rlhi.errors import InputError
from rlhi.records import Reason, Role

TOOLS = ("tool", "function", "function_call", "observation")  # OpenAI's and ShareGPT's names
TOOL_PARTS = ("tool_use", "tool_result")
TEXT_PARTS = ("text", "input_text", "output_text", None)
MILLISECONDS = 1e11  # as seconds this is the year 5138, as milliseconds 1973

Text = str | None
Alternatives = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class Mapping:
    """Where a chat log keeps what. Each field takes one path or a list of alternatives."""

    messages: Alternatives = Field(
        default=("messages", "conversation", "conversations"), description="The list of messages."
    )
    role: Alternatives = Field(default=("role", "from"), description="Within a message: who speaks.")
    content: Alternatives = Field(
        default=("content", "value", "refusal"), description="Within a message: the text, or parts with a text each."
    )
    id: Alternatives = Field(default=("id", "conversation_id"), description="Identity of the conversation.")
    user: Alternatives = Field(
        default=("user_id", "user.id", "user", "metadata.user_id", "metadata.user.id", "metadata.user"),
        description="Who the user is: any stable pseudonym.",
    )
    time: Alternatives = Field(
        default=("timestamp", "created_at", "created", "time", "create_time", "metadata.timestamp"),
        description="When: ISO 8601 (UTC where it names no zone), or seconds or milliseconds since 1970.",
    )
    model: Alternatives = Field(default=("model", "metadata.model"), description="Which model answered.")
    language: Alternatives = Field(default=("language", "metadata.language"), description="Name of the language.")
    toxic: Alternatives = Field(default=("toxic",), description="Whether the source flags it as toxic.")
    redacted: Alternatives = Field(default=("redacted",), description="Whether the source removed personal data.")
    user_agent: Alternatives = Field(
        default=("user_agent", "metadata.user_agent"), description="The user's browser or client."
    )
    roles: dict[str, Role] = Field(
        default_factory=lambda: dict[str, Role](
            human="user", ai="assistant", bot="assistant", gpt="assistant", model="assistant", developer="system"
        ),
        description="Other names of the roles.",
    )


WILDCHAT = Mapping(
    messages=("conversation",),
    role=("role",),
    content=("content",),
    id=("conversation_hash + conversation.*.turn_identifier",),  # the hash alone is not unique in the published data
    user=("hashed_ip", "conversation.*.hashed_ip"),
    time=("timestamp", "conversation.*.timestamp"),
    model=("model",),
    language=("language",),
    toxic=("toxic",),
    redacted=("redacted",),
    user_agent=("header.user-agent", "conversation.*.header.user-agent"),
    roles={},
)


@plain_dataclass(frozen=True, slots=True)
class RawRow:
    """What a row says, nothing judged yet. A message is (role, content); what is missing or of no use is null.

    ``key`` is the identity in the source, ``timestamp`` is in UTC.
    """

    key: str | None
    user: str | None
    user_agent: str | None
    timestamp: datetime | None
    model: str | None
    language: str | None
    toxic: bool | None
    redacted: bool | None
    messages: tuple[tuple[Text, Text], ...]


def parse(row: object, mapping: Mapping) -> RawRow | Reason:
    """One row as ``mapping`` reads it, or ``not_a_record`` where it holds no list of messages. Never raises."""
    if not isinstance(row, Fields):
        return "not_a_record"
    turns = next(_found(row, mapping.messages), None)
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Fields) for turn in turns):
        return "not_a_record"
    return RawRow(
        key=_name(row, mapping.id),
        user=_name(row, mapping.user),
        user_agent=_name(row, mapping.user_agent),
        timestamp=next((when for value in _found(row, mapping.time) if (when := to_time(value))), None),
        model=_name(row, mapping.model),
        language=_name(row, mapping.language),
        toxic=_flag(row, mapping.toxic),
        redacted=_flag(row, mapping.redacted),
        messages=_messages(turns, mapping),
    )


def check(row: Fields[str, Any], mapping: Mapping, where: str) -> None:
    """Whether a row, the first of a file, has what every conversation needs; null where a row has none is enough.

    Raises:
        InputError: a field that is nowhere, what fields there are and how to map it; ``where`` names file and row.
    """
    for name in ("messages", "user"):
        _require(row, name, mapping, where)
    turns = next(_found(row, mapping.messages), None)
    first = next((turn for turn in turns if isinstance(turn, Fields)), None) if isinstance(turns, list) else None
    for name in ("role", "content") if first is not None else ():
        _require(first, name, mapping, f"{where}, first message")  # type: ignore[arg-type]


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names for an error in one line: the first ``most``, and how many there are."""
    found = [" ".join(name.split()) for name in names]
    return ", ".join(found[:most]) + (f", … ({len(found)})" if len(found) > most else "")


def _require(node: Fields[str, Any], name: str, mapping: Mapping, where: str) -> None:
    paths: tuple[str, ...] = getattr(mapping, name)
    if any(True for path in paths for part in path.split(" + ") for _ in _follow(node, _steps(part))):
        return
    raise InputError(
        f"{where}: has no field for {name} ({' or '.join(paths)}); its fields are {listed(_fields(node))}; "
        f"""name it: --mapping.{name}='["path.to.it"]'"""
    )


def _fields(node: Fields[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, Fields) and not prefix:
            yield from _fields(value, f"{name}.")


def _found(node: Fields[str, Any], paths: tuple[str, ...]) -> Iterator[Any]:
    """What the alternatives lead to, in order, without nulls."""
    for path in paths:
        if path in node:  # most are plain names, and there are many rows
            yield from [] if node[path] is None else [node[path]]
        else:
            yield from (value for value in _follow(node, _steps(path)) if value is not None)


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def _follow(node: Any, steps: tuple[str, ...]) -> Iterator[Any]:
    """Every value at the end of a path: none where it leads nowhere, several after a ``*``; null after a null."""
    if not steps or node is None:
        yield node
    elif isinstance(node, Fields):
        flat = ".".join(steps)
        if flat in node:
            yield node[flat]
        elif steps[0] in node:
            yield from _follow(node[steps[0]], steps[1:])
    elif isinstance(node, list):
        items = node if steps[0] == "*" else node[int(steps[0]) :][:1] if steps[0].isdecimal() else []
        for item in items:
            yield from _follow(item, steps[1:])


def _name(row: Fields[str, Any], paths: tuple[str, ...]) -> str | None:
    """The first alternative that can be read as a name; one with `` + `` is made of the parts that can."""
    for path in paths:
        parts = [next(filter(None, map(_text, _found(row, (part,)))), None) for part in path.split(" + ")]
        if any(parts):
            return " ".join(filter(None, parts))
    return None


def _text(value: object) -> str | None:
    """A name: text that is not blank, or a number; 7.0 is 7, as tables with gaps turn it into."""
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**100 else None  # Python refuses to write longer ones than 4300 digits
    return (_writable(value).strip() or None) if isinstance(value, str) else None


def _writable(text: str) -> str:
    """Half of a character that was cut in two cannot be written again."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _flag(row: Fields[str, Any], paths: tuple[str, ...]) -> bool | None:
    return next((value for value in _found(row, paths) if isinstance(value, bool)), None)


def to_time(value: object) -> datetime | None:
    """A time in UTC, from ISO 8601 or seconds or milliseconds since 1970; null where it is none."""
    try:
        if isinstance(value, str) and not value.isdecimal():
            value = datetime.fromisoformat(value.strip())
        elif isinstance(value, int | float) and not isinstance(value, bool):
            value = datetime.fromtimestamp(value / 1000 if abs(value) >= MILLISECONDS else value, UTC)
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _messages(turns: list[Fields[str, Any]], mapping: Mapping) -> tuple[tuple[Text, Text], ...]:
    said: list[tuple[Text, Text]] = []
    passed = False
    for turn in turns:
        role, content = _role(turn, mapping), _content(turn, mapping)
        if _is_tools(turn, role, content, mapping):
            passed = True
            continue
        before = said[-1][1] if passed and said and role == "assistant" == said[-1][0] else None
        if before is not None and content is not None:
            said[-1] = (role, f"{before}\n\n{content}")
        else:
            said.append((role, content))
        passed = False
    return tuple(said)


def _role(turn: Fields[str, Any], mapping: Mapping) -> str | None:
    role = next(_found(turn, mapping.role), None)
    return mapping.roles.get(role, _writable(role)) if isinstance(role, str) else None


def _content(turn: Fields[str, Any], mapping: Mapping) -> str | None:
    content = next(_found(turn, mapping.content), None)
    if isinstance(content, list):
        texts = [text for part in content if (text := _part(part)) is not None]
        content = "\n\n".join(texts) if texts else None
    return _writable(content) if isinstance(content, str) else None


def _part(part: object) -> str | None:
    if isinstance(part, Fields):
        part = part.get("text") if part.get("type") in TEXT_PARTS else None
    return part if isinstance(part, str) else None


def _is_tools(turn: Fields[str, Any], role: str | None, content: str | None, mapping: Mapping) -> bool:
    """Whether a message is between assistant and tools, with nothing in it for the user."""
    if role in TOOLS:
        return True
    if content is not None and content.strip():
        return False
    if role == "assistant" and (turn.get("tool_calls") or turn.get("function_call")):
        return True
    parts = next(_found(turn, mapping.content), None)
    return isinstance(parts, list) and any(
        isinstance(part, Fields) and part.get("type") in TOOL_PARTS for part in parts
    )

"""Infers at most five points on how a user likes to be answered, from the user's own messages.

Only user messages are read (2.2, Fig. 7), newest first and cut by tokens, and never those of a held-out conversation
(3.4). A point is a line; what comes after the last allowed point is cut. An empty persona is dropped with its reason.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, SamplingConfig, StageConfig
from rlhi.conversations import in_time
from rlhi.engine import Engine, Request, generate, open_engine
from rlhi.records import Conversation, Dropped, Message, Persona
from rlhi.render import prompt

BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*")


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class PersonaConfig(StageConfig):
    """Who infers personas, and from how much."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    sampling: SamplingConfig = Field(default_factory=lambda: SamplingConfig(max_tokens=256))
    max_points: int = Field(default=5, ge=1, description="Points of a persona at most (Fig. 7).")
    history_tokens: int = Field(default=3072, ge=32, description="User messages read, newest first, in tokens.")


def run(conversations: Input[Conversation], personas: Output[Persona], config: PersonaConfig) -> None:
    """Writes one `Persona` per user with something to read; the others are dropped by user id."""
    rows = conversations.read()
    kept, dropped = infer(rows, open_engine(config.engine), config)
    personas.write(kept, dropped, len({row.user_id for row in rows}))


def infer(rows: Sequence[Conversation], engine: Engine, config: PersonaConfig) -> tuple[list[Persona], list[Dropped]]:
    """Personas in the order in which users first appear."""
    history: dict[str, list[Conversation]] = defaultdict(list)
    for row in rows:
        history[row.user_id] += [row] if row.split != "held-out" else []
    asked, dropped = {}, []
    for user, own in history.items():
        request, read = _ask(user, own, engine, config)
        if read:
            asked[user] = request, read
        else:
            dropped.append(Dropped(user, "no_message_fits"))
    replies = generate(engine, [request for request, _ in asked.values()], config.sampling, 1, config.seed)
    kept = []
    for (user, (_, read)), (reply,) in zip(asked.items(), replies, strict=True):
        text = points(reply.text, config.max_points)
        if text:
            kept.append(Persona(user, text, tuple(read)))
        else:
            dropped.append(Dropped(user, "empty_persona"))
    return kept, dropped


def points(text: str, most: int) -> str:
    """The first ``most`` lines that say something, each as ``- point``; repeated points once."""
    said = [BULLET.sub("", line).strip() for line in text.splitlines()]
    return "\n".join(f"- {point}" for point in list(dict.fromkeys(filter(None, said)))[:most])


def _ask(user: str, own: Sequence[Conversation], engine: Engine, config: PersonaConfig) -> tuple[Request, list[str]]:
    """The request, and the conversations whose messages fit into it: newest first, oldest left out.

    A newest conversation that is too long by itself is passed over, so that one pasted file does not cost a persona.
    """
    limit = min(config.history_tokens, engine.max_prompt_tokens)
    request = Request(user, ())
    read: list[str] = []
    lines: list[str] = []
    for row in sorted(own, key=in_time, reverse=True):
        said = [message.content.strip() for message in row.messages if message.role == "user"]
        text = prompt(
            "rlhi.persona",
            "prompt.j2",
            max_points=config.max_points,
            user_message_history="\n\n".join([*lines, *said]),
        )
        larger = Request(user, (Message("user", text),))
        if engine.count_tokens(larger) > limit:
            if read:
                break
            continue
        request, lines = larger, [*lines, *said]
        read.append(row.id)
    return request, read

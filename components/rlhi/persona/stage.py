"""Infers at most five points on how a user likes to be answered, from the user's own messages.

Only user messages are read (2.2, Fig. 7), the newest that fit, and never those of a held-out conversation
(3.4). A point is a line; what comes after the last allowed point is cut. A reply that refuses or says nothing is
dropped with its reason. Names, addresses and ids are asked to stay out, and what the model writes all the same is
replaced (`rlhi.pii`).

Personas change as people talk (2.3 says so and not how): here the points so far and what is new make the next points,
and the history is not read again. A recurring run does so with the personas of an earlier one (`previous`), a server
with `update`. Beyond the paper, `time_safe` lets a training conversation know only what its user had said before it;
the paper's personas also know what comes after.
"""

from collections.abc import Sequence
from functools import partial

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, SamplingConfig, StageConfig
from rlhi.engine import Engine, Reply, Request, generate, open_engine
from rlhi.errors import InputError
from rlhi.history import Utterance, as_spoken, fitting
from rlhi.persona.points import points, without_placeholders
from rlhi.persona.timing import Made, Material, per_user, time_safe
from rlhi.pii.persona import redact_persona
from rlhi.records import Conversation, Message, Persona, Reason
from rlhi.render import prompt


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class PersonaConfig(StageConfig):
    """Who infers personas, and from how much."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    sampling: SamplingConfig = Field(default_factory=lambda: SamplingConfig(max_tokens=256))
    max_points: int = Field(default=5, ge=1, description="Points of a persona at most (Fig. 7).")
    history_tokens: int = Field(default=3072, ge=32, description="User messages read, newest first, in tokens.")
    time_safe: bool = Field(
        default=False,
        description="A persona for each training conversation, from earlier ones only; the paper's know all of them.",
    )


def run(
    conversations: Input[Conversation],
    personas: Output[Persona],
    config: PersonaConfig,
    previous: Input[Persona] | None = None,
) -> None:
    """Writes one `Persona` per user with something to read; the others are dropped by user id.

    ``previous`` holds the personas of an earlier run, to be kept or updated. Time-safe personas are per training
    conversation, and dropped by conversation id.

    Raises:
        InputError: an earlier run's personas together with time-safe ones.
    """
    rows = conversations.read()
    before = [] if previous is None else previous.read()
    _check(before, config)
    maker = partial(make, engine=open_engine(config.engine), config=config)
    written = time_safe(rows, maker) if config.time_safe else per_user(rows, before, maker)
    users = {row.user_id for row in rows if row.split != "train" or not config.time_safe}
    trained_on = sum(row.split == "train" for row in rows) if config.time_safe else 0
    personas.write(written.kept, written.dropped, len(users) + trained_on)
    personas.measure({f"personas/{name}": float(n) for name, n in written.counts.items()})


def make(asked: Sequence[Material], engine: Engine, config: PersonaConfig) -> list[Made]:
    """Personas from materials, all in one batch; one of whose messages none fits is not asked for."""
    limit = min(config.history_tokens, engine.max_prompt_tokens)
    shown = [fitting(each.said, partial(_request, each, config), engine, limit) for each in asked]
    requests = [_request(each, config, read) for each, read in zip(asked, shown, strict=True) if read]
    replies = iter(generate(engine, requests, config.sampling, 1, config.seed))
    return [
        _made(each, read, next(replies)[0], config) if read else Made("", (), "no_message_fits")
        for each, read in zip(asked, shown, strict=True)
    ]


def update(persona: str, messages: Sequence[str], engine: Engine, config: PersonaConfig) -> str:
    """The persona's text after the user's newer ``messages``, oldest first; for a server, between two conversations.

    The history is not read again: the points so far and the new messages are all that the model sees. Where its reply
    is of no use, or no message fits, the persona stays as it is.
    """
    said = [Utterance("", place, text.strip()) for place, text in enumerate(messages)][::-1]
    (made,) = make([Material("update", None, said, Persona("", persona, (), None))], engine, config)
    return made.text or persona


def _made(material: Material, read: Sequence[Utterance], reply: Reply, config: PersonaConfig) -> Made:
    text, reason = _points(reply, config.max_points)
    redacted, found = redact_persona(text, [one.text for one in material.said])
    telling = without_placeholders(redacted)
    conversations = tuple(dict.fromkeys(one.conversation_id for one in read))
    return Made(telling, conversations, reason or (None if telling else "empty_persona"), found)


def _points(reply: Reply, most: int) -> tuple[str, Reason | None]:
    """The points of a reply, and why there are none; without one that was cut, unless it is all there is."""
    if reply.missing is not None:
        return "", reply.missing
    whole = reply.text.rpartition("\n")[0] if reply.finish_reason == "length" else reply.text
    found = points(whole, most)
    return found if found[0] else points(reply.text, most)


def _request(material: Material, config: PersonaConfig, read: Sequence[Utterance]) -> Request:
    values = {"max_points": config.max_points, "user_message_history": "\n\n".join(one.text for one in as_spoken(read))}
    if material.so_far is None:
        text = prompt("rlhi.persona", "prompt.j2", **values)
    else:
        text = prompt("rlhi.persona", "update.j2", points=material.so_far.text, **values)
    return Request(material.key, (Message("user", text),), user_id=material.user)


def _check(previous: Sequence[Persona], config: PersonaConfig) -> None:
    """Time-safe personas are made from a user's beginning on: only so is each known to be older than what it is for."""
    own = next((persona for persona in previous if persona.conversation_id is not None), None)
    if previous and config.time_safe:
        raise InputError("persona.time_safe: cannot go on from earlier personas; leave --previous out")
    if own is not None:
        raise InputError(
            f"--previous: holds a persona for conversation {own.conversation_id} alone; give a run without time_safe"
        )

"""Small questions that several stages ask of a conversation."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rlhi.records import Conversation, Message


def user_indices(conversation: Conversation) -> list[int]:
    """Where the user's messages are."""
    return [index for index, message in enumerate(conversation.messages) if message.role == "user"]


def turn_id(conversation: Conversation, index: int) -> str:
    """The id of the user message at ``index``: also the id of the prompt that ends with it."""
    return f"{conversation.id}/{index}"


def context_of(conversation: Conversation, index: int) -> tuple[Message, ...]:
    """Everything up to and with the user message at ``index``: the prompt of the answer that follows."""
    return conversation.messages[: index + 1]


def answer_after(conversation: Conversation, index: int) -> str | None:
    """The logged answer to the user message at ``index``."""
    following = conversation.messages[index + 1 : index + 2]
    return following[0].content if following and following[0].role == "assistant" else None


def in_time(conversation: Conversation) -> tuple[datetime, str]:
    """The sort key of a user's history: oldest first, those without a time before all others, ties by id."""
    return conversation.timestamp or datetime.min.replace(tzinfo=UTC), conversation.id


def transcript(context: Sequence[Message]) -> str:
    """The conversation as judges read it."""
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in context)

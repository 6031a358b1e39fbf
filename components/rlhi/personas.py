"""Which persona goes with which conversation, and so which turns can be learned from."""

from collections.abc import Collection, Iterable

from rlhi.records import Conversation, Persona, Reason, Turn


class Personas:
    """Finds the persona of a conversation: the one made for it alone, or else its user's."""

    def __init__(self, personas: Iterable[Persona]) -> None:
        self._texts = {(persona.user_id, persona.conversation_id): persona.text for persona in personas}

    def of(self, conversation: Conversation) -> str | None:
        """The text of the persona; null where there is none."""
        user = conversation.user_id
        return self._texts.get((user, conversation.id), self._texts.get((user, None)))


def unusable(
    turn: Turn, conversation: Conversation | None, labels: Collection[str], personas: Personas | None
) -> Reason | None:
    """Why nothing can be learned from a turn, or null. Without ``personas`` none is needed."""
    if conversation is None:
        return "conversation_dropped"
    if conversation.split != "train":
        return "held_out"
    if turn.meaningful_feedback is False:
        return "no_meaningful_feedback"
    if turn.label not in labels:
        return "other_label"
    return None if personas is None or personas.of(conversation) is not None else "no_persona"

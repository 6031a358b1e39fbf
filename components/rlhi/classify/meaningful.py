"""Which users give meaningful feedback (C.1, point 6).

The paper filters users by a model's word and gives no prompt. Here a user's follow-ups that were labelled re-attempt
with feedback or positive feedback are shown to the model, newest first and as many as fit, with one question. A user
without any is not asked and fails. A user whose answer cannot be read, or none of whose messages fits the prompt,
stays: nothing is guessed against anybody.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rlhi.engine import Engine, Request
from rlhi.history import Utterance, fitting, newest_first
from rlhi.questions import YES_NO, Method, Said, ask
from rlhi.records import Conversation, Label, Message, Turn
from rlhi.render import prompt

TELLING: tuple[Label, ...] = ("re-attempt with feedback", "positive feedback")


@dataclass(frozen=True)
class Feedback:
    """Training users, those of them without meaningful feedback, and what the model said of each who reacted."""

    users: Sequence[str]
    without: frozenset[str]
    said: Sequence[Said]

    @property
    def metrics(self) -> dict[str, float]:
        """Counts of users."""
        unread = sum(each.name is None for each in self.said)
        counts = {"users": len(self.users), "asked": len(self.said), "without": len(self.without), "unread": unread}
        return {f"meaningful_feedback/{name}": float(n) for name, n in counts.items()}


def meaningful(rows: Sequence[Conversation], turns: Sequence[Turn], engine: Engine, method: Method) -> Feedback:
    """Asks about every training user who reacted to an answer; evaluation users are not filtered."""
    own = defaultdict(list)
    for row in rows:
        if row.split == "train":
            own[row.user_id].append(row)
    telling = {(turn.conversation_id, turn.index) for turn in turns if turn.label in TELLING}
    requests, answers = [], []
    for user, conversations in own.items():
        said = [one for one in newest_first(conversations) if (one.conversation_id, one.index) in telling]
        shown = fitting(said, partial(_request, user), engine, engine.max_prompt_tokens)
        if shown:
            requests.append(_request(user, shown))
        elif said:
            answers.append(Said(user, None, ""))
    answers += ask(requests, YES_NO, engine, method)
    without = frozenset(own) - {answer.key for answer in answers if answer.name != "No"}
    return Feedback(list(own), without, answers)


def _request(user: str, shown: Sequence[Utterance]) -> Request:
    text = prompt("rlhi.classify", "meaningful.j2", user_messages="\n\n".join(one.text for one in shown))
    return Request(user, (Message("user", text),), user_id=user)

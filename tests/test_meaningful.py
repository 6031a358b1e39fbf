from collections.abc import Callable

from rlhi.classify.meaningful import Feedback, meaningful
from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.records import Conversation, Label, Split
from tests.rows import talk, turn

FEEDBACK: Label = "re-attempt with feedback"


def asked(
    rows: list[Conversation],
    labels: dict[str, Label],
    reply: Callable[[Request, int], str] = lambda *_: "[[Yes]]",
    limit: int = 4096,
) -> Feedback:
    """Feedback of the users of ``rows``, whose turns have ``labels`` by turn id."""
    turns = [turn(row, i, labels[f"{row.id}/{i}"]) for row in rows for i in range(9) if f"{row.id}/{i}" in labels]
    return meaningful(rows, turns, ScriptedEngine(reply, limit), "choose")


def shown(rows: list[Conversation], labels: dict[str, Label], limit: int = 4096) -> dict[str, list[str]]:
    """The messages that the model saw, by user."""
    seen: dict[str, list[str]] = {}

    def reply(request: Request, _: int) -> str:
        text = request.messages[0].content
        seen[request.key] = text.split("[The Start of User Messages]\n")[1].split("\n[The End")[0].split("\n\n")
        return "[[Yes]]"

    asked(rows, labels, reply, limit)
    return seen


def test_feedback_and_praise_are_shown_newest_first() -> None:
    rows = [
        talk("old", "Cake?", "Eggs.", "Shorter.", "Egg.", "Pie?", "Apples.", "Longer.", "Peel apples."),
        talk("new", "Nut?", "Hazel.", "Thanks.", day=1),
    ]
    labels: dict[str, Label] = {
        "old/0": "initial",
        "old/2": FEEDBACK,
        "old/4": "new",
        "old/6": FEEDBACK,
        "new/0": "initial",
        "new/2": "positive feedback",
    }
    assert shown(rows, labels) == {"ann": ["Thanks.", "Longer.", "Shorter."]}


def test_message_that_does_not_fit_is_passed_over() -> None:
    rows = [
        talk("c", "Cake?", "Eggs.", "Shorter."),
        talk("d", "Cake?", "Eggs.", "word " * 500, day=1),
        talk("e", "Cake?", "Eggs.", "Warmer.", day=2),
    ]
    assert shown(rows, {f"{row.id}/2": FEEDBACK for row in rows}, limit=300) == {"ann": ["Warmer.", "Shorter."]}


def test_user_with_neither_feedback_nor_praise_fails_without_being_asked() -> None:
    rows = [talk("c", "Cake?", "Eggs.", "Cake?"), talk("d", "Hi.", "Yes?", user="ben")]
    found = asked(rows, {"c/0": "initial", "c/2": "re-attempt without feedback", "d/0": "initial"})
    assert found.without == {"ann", "ben"}
    assert found.said == []


def test_user_fails_by_the_models_word_alone() -> None:
    rows = [talk(user, "Cake?", "Eggs.", "Hm.", user=user) for user in ("ann", "ben", "eve")]
    replies = {"ann": "[[Yes]]", "ben": "[[No]]", "eve": "Perhaps."}
    found = asked(rows, {f"{row.id}/2": FEEDBACK for row in rows}, lambda request, _: replies[request.key])
    assert found.without == {"ben"}
    assert found.metrics == {
        "meaningful_feedback/users": 3,
        "meaningful_feedback/asked": 3,
        "meaningful_feedback/without": 1,
        "meaningful_feedback/unread": 1,
    }


def test_user_none_of_whose_messages_fits_stays_and_is_counted() -> None:
    found = asked([talk("c", "Cake?", "Eggs.", "word " * 500)], {"c/2": FEEDBACK}, lambda *_: "[[No]]", limit=300)
    assert found.without == frozenset()
    assert found.metrics["meaningful_feedback/unread"] == 1


def test_evaluation_users_are_not_filtered() -> None:
    splits: tuple[Split, ...] = ("reference", "held-out")
    rows = [talk(split, "Cake?", "Eggs.", "Shorter.", split=split) for split in splits]
    found = asked(rows, {f"{row.id}/2": FEEDBACK for row in rows}, lambda *_: "[[No]]")
    assert (found.users, found.without, found.said) == ([], frozenset(), [])

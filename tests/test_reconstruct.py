from dataclasses import replace

from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.reconstruct.stage import ReconstructConfig, reconstruct
from rlhi.records import Conversation
from tests.rows import messages, reasons, talk, turn

CONFIG = ReconstructConfig()
TALK = talk("c", "One.", "1", "Two.", "2", "Three.", "3")


def echo(request: Request, _: int) -> str:
    """Says what it was shown, so that the context can be read off the answer."""
    return "|".join(message.content for message in request.messages)


def test_answers_are_regenerated_in_turn_with_the_new_ones_before() -> None:
    (row,), dropped = reconstruct([TALK], [], ScriptedEngine(echo), CONFIG)
    assert dropped == []
    assert row == replace(
        TALK,
        messages=messages("One.", "One.", "Two.", "One.|One.|Two.", "Three.", "One.|One.|Two.|One.|One.|Two.|Three."),
    )


def test_only_training_conversations_are_changed() -> None:
    rows = [talk("h", "Hi.", "A", split="held-out"), talk("t", "Hi.", "A"), talk("r", "Hi.", "A", split="reference")]
    found, _ = reconstruct(rows, [], ScriptedEngine(lambda *_: "B"), CONFIG)
    assert [(row.id, row.messages[1].content) for row in found] == [("h", "A"), ("t", "B"), ("r", "A")]


def test_last_word_of_the_user_stays_without_an_answer() -> None:
    (row,), _ = reconstruct([talk("c", "One.", "1", "Bye.")], [], ScriptedEngine(lambda *_: "B"), CONFIG)
    assert row.messages == messages("One.", "B", "Bye.")


def test_system_message_is_seen_and_stays() -> None:
    (row,), _ = reconstruct([talk("c", "system:Be kind.", "Hi.", "1")], [], ScriptedEngine(echo), CONFIG)
    assert row.messages == messages("system:Be kind.", "Hi.", "Be kind.|Hi.")


def test_conversation_with_an_empty_answer_or_a_long_prompt_is_dropped() -> None:
    rows = [talk("empty", "One.", "1", "Silence.", "2"), talk("long", "word " * 50, "1"), talk("good", "Hi.", "1")]

    def reply(request: Request, _: int) -> str:
        return "" if request.messages[-1].content == "Silence." else "B"

    kept, dropped = reconstruct(rows, [], ScriptedEngine(reply, max_prompt_tokens=20), CONFIG)
    assert [row.id for row in kept] == ["good"]
    assert reasons(dropped) == {"empty": "empty_answer", "long": "prompt_too_long"}


def cut(row: Conversation, *feedback: int) -> Conversation:
    turns = [turn(row, index, "re-attempt with feedback") for index in feedback]
    turns += [turn(row, 2, "positive feedback")] if 2 not in feedback else []
    config = replace(CONFIG, only_before_feedback=True)
    (found,), _ = reconstruct([row], turns, ScriptedEngine(lambda *_: "B"), config)
    return found


def test_what_comes_after_the_last_feedback_is_cut_off() -> None:
    assert cut(TALK, 2).messages == messages("One.", "B", "Two.")
    assert cut(TALK, 2, 4).messages == messages("One.", "B", "Two.", "B", "Three.")
    assert cut(TALK).messages == messages("One.")

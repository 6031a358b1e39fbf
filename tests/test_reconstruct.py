import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhi.artifacts import Input, Output
from rlhi.config import EngineConfig
from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.execute import Call, execute
from rlhi.questions import UNREAD, Said
from rlhi.reconstruct.follow_ups import figures, told
from rlhi.reconstruct.stage import ReconstructConfig, reconstruct, run
from rlhi.records import Conversation, Label, Turn
from rlhi.rewrite.stage import RewriteConfig, rewrite
from tests.rows import messages, personas, reasons, talk, turn

CONFIG = ReconstructConfig()
TALK = talk("c", "One.", "1", "Two.", "2", "Three.", "3")


def echo(request: Request, _: int) -> str:
    """Says what it was shown, so that the context can be read off the answer."""
    return "|".join(message.content for message in request.messages)


def test_answers_are_regenerated_in_turn_with_the_new_ones_before() -> None:
    (row,), dropped, _ = reconstruct([TALK], [], ScriptedEngine(echo), CONFIG)
    assert dropped == []
    assert row == replace(
        TALK,
        messages=messages("One.", "One.", "Two.", "One.|One.|Two.", "Three.", "One.|One.|Two.|One.|One.|Two.|Three."),
    )


def test_only_training_conversations_are_changed() -> None:
    rows = [talk("h", "Hi.", "A", split="held-out"), talk("t", "Hi.", "A"), talk("r", "Hi.", "A", split="reference")]
    found, _, _ = reconstruct(rows, [], ScriptedEngine(lambda *_: "B"), CONFIG)
    assert [(row.id, row.messages[1].content) for row in found] == [("h", "A"), ("t", "B"), ("r", "A")]


def test_last_word_of_the_user_stays_without_an_answer() -> None:
    (row,), _, _ = reconstruct([talk("c", "One.", "1", "Bye.")], [], ScriptedEngine(lambda *_: "B"), CONFIG)
    assert row.messages == messages("One.", "B", "Bye.")


def test_system_message_is_seen_and_stays() -> None:
    (row,), _, _ = reconstruct([talk("c", "system:Be kind.", "Hi.", "1")], [], ScriptedEngine(echo), CONFIG)
    assert row.messages == messages("system:Be kind.", "Hi.", "Be kind.|Hi.")


def test_conversation_with_an_empty_answer_or_a_long_prompt_is_dropped() -> None:
    rows = [talk("empty", "One.", "1", "Silence.", "2"), talk("long", "word " * 50, "1"), talk("good", "Hi.", "1")]

    def reply(request: Request, _: int) -> str:
        return "" if request.messages[-1].content == "Silence." else "B"

    kept, dropped, _ = reconstruct(rows, [], ScriptedEngine(reply, max_prompt_tokens=20), CONFIG)
    assert [row.id for row in kept] == ["good"]
    assert reasons(dropped) == {"empty": "empty_answer", "long": "prompt_too_long"}


def cut(row: Conversation, *feedback: int) -> Conversation:
    turns = [turn(row, index, "re-attempt with feedback") for index in feedback]
    turns += [turn(row, 2, "positive feedback")] if 2 not in feedback else []
    config = replace(CONFIG, only_before_feedback=True)
    (found,), _, _ = reconstruct([row], turns, ScriptedEngine(lambda *_: "B"), config)
    return found


def test_what_comes_after_the_last_feedback_is_cut_off() -> None:
    assert cut(TALK, 2).messages == messages("One.", "B", "Two.")
    assert cut(TALK, 2, 4).messages == messages("One.", "B", "Two.", "B", "Three.")
    assert cut(TALK).messages == messages("One.")


FEEDBACK: Label = "re-attempt with feedback"
CHECKED = replace(CONFIG, check_follow_up=True)


def checked(verdicts: dict[str, str], *labelled: int, **settings: Any) -> tuple[Conversation, list[Said]]:
    """`TALK` with new answers, after the model gave ``verdicts`` by follow-up."""

    def reply(request: Request, _: int) -> str:
        asked = re.search(r"Follow-up]\n(.*)\n\[The End", request.messages[-1].content)
        return verdicts[asked[1]] if asked else f"B{len(request.messages)}"

    turns = [turn(TALK, index, FEEDBACK) for index in labelled]
    (row,), _, said = reconstruct([TALK], turns, ScriptedEngine(reply), replace(CHECKED, **settings))
    return row, said


def test_conversation_ends_before_feedback_that_no_longer_applies() -> None:
    row, said = checked({"Two.": "[[Yes]]", "Three.": "[[No]]"}, 2, 4)
    assert row.messages == messages("One.", "B1", "Two.", "B3")
    assert [(one.key, one.name) for one in said] == [("c/2", "Yes"), ("c/4", "No")]


def test_nothing_is_regenerated_or_asked_after_the_end() -> None:
    row, said = checked({"Two.": "[[No]]"}, 2, 4)
    assert row.messages == messages("One.", "B1")
    assert [one.key for one in said] == ["c/2"]


def test_feedback_that_applies_or_cannot_be_judged_stays() -> None:
    row, said = checked({"Two.": "Hard to say.", "Three.": "[[Yes]]"}, 2, 4, method="generate")
    assert row.messages == messages("One.", "B1", "Two.", "B3", "Three.", "B5")
    assert figures(said) == {
        "follow_up/checked": 2,
        "follow_up/no_longer_apply": 0,
        "follow_up/unread": 1,
        "follow_up/share": 0,
    }


def test_only_feedback_is_checked() -> None:
    assert checked({}, 0)[1] == []
    assert checked({"Three.": "[[No]]"}, 4)[0].messages == messages("One.", "B1", "Two.", "B3")


def test_check_shows_the_request_the_new_answer_and_the_follow_up() -> None:
    seen: list[str] = []

    def reply(request: Request, _: int) -> str:
        if "[The Start of Answer]" in request.messages[-1].content:
            seen.append(request.messages[-1].content)
            return "[[Yes]]"
        return "NEW"

    reconstruct([TALK], [turn(TALK, 4, FEEDBACK)], ScriptedEngine(reply), CHECKED)
    assert re.findall(r"\[The Start of (.*)]\n(.*)\n", seen[0]) == [
        ("Request", "Two."),
        ("Answer", "NEW"),
        ("User Follow-up", "Three."),
    ]


def test_question_that_is_too_long_is_not_asked_and_counted() -> None:
    engine = ScriptedEngine(lambda *_: "B", max_prompt_tokens=20)  # the question itself has more words than that
    (row,), dropped, said = reconstruct([TALK], [turn(TALK, 2, FEEDBACK)], engine, CHECKED)
    assert (len(row.messages), dropped, said) == (6, [], [Said("c/2", None, "")])
    assert figures(said) == {"follow_up/checked": 1, "follow_up/no_longer_apply": 0, "follow_up/unread": 1}


def test_follow_up_that_no_longer_applies_becomes_no_rewrite() -> None:
    row, _ = checked({"Two.": "[[Yes]]", "Three.": "[[No]]"}, 2, 4)
    turns = [turn(TALK, index, FEEDBACK) for index in (2, 4)]
    kept, dropped = rewrite(turns, {"c": row}, personas("ann"), ScriptedEngine(lambda *_: "Better."), RewriteConfig())
    assert [each.id for each in kept] == ["c/2"]
    assert reasons(dropped) == {"c/4": "follow_up_no_longer_applies"}


def test_figures_are_told_in_a_sentence() -> None:
    said = [Said("a", "No", ""), Said("b", "Yes", ""), Said("c", None, "")]
    assert figures(said)["follow_up/share"] == 0.5
    assert told(said, "a model").startswith("1 of 3 follow-ups with feedback no longer apply")
    assert "1 could not be judged" in told(said, "a model")


@pytest.mark.parametrize("check", [True, False])
def test_run_measures_the_check_where_it_is_made(check: bool, tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text(
        json.dumps([{"contains": "Verdict:", "reply": "Well,"}, {"contains": "", "reply": "B"}])
    )

    def rows(output: Output[Conversation], config: object) -> None:
        output.write([TALK], [], 1)

    def turns(output: Output[Turn], config: object) -> None:
        output.write([turn(TALK, 2, FEEDBACK)], [], 1)

    engine = EngineConfig(kind="scripted", script=str(tmp_path / "script.json"))
    config = ReconstructConfig(engine=engine, check_follow_up=check, method="generate")
    execute(Call("ingest", rows, {}, {}, "output", Output(tmp_path / "c", Conversation), config))
    execute(Call("classify", turns, {}, {}, "output", Output(tmp_path / "t", Turn), config))
    inputs: dict[str, Input[Any]] = {
        "conversations": Input(tmp_path / "c", Conversation),
        "turns": Input(tmp_path / "t", Turn),
    }
    out: Output[Conversation] = Output(tmp_path / "out", Conversation)
    described = execute(Call("reconstruct", run, inputs, {}, "reconstructed", out, config))
    assert ("follow_up/unread" in described.metrics) == ("follow_ups" in described.notes) == check
    assert (tmp_path / "out" / UNREAD).exists() == check

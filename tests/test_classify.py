import re
from dataclasses import replace
from pathlib import Path

import pytest

from rlhi.artifacts import Input, Output
from rlhi.classify.stage import CHOICES, EMPTY, ClassifyConfig, best, classify, run
from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.execute import Call, execute
from rlhi.records import Conversation, Turn
from tests.rows import reasons, talk

CONFIG = ClassifyConfig()
TALK = talk("c", "Cake recipe.", "Take eggs.", "Shorter.", "Eggs.", "Pie recipe.", "Apples.", "Thanks.", "Welcome.")


def compared(request: Request) -> tuple[str, str]:
    """The two requests that the last example of the prompt asks about."""
    asked = request.messages[-1].content
    first, second = re.findall(r"1st request: (.*)\n2nd request: (.*)", asked)[-1]
    return first, second


def judge(request: Request, index: int) -> str:
    """Knows that a pie is new, that thanks are positive, and takes the rest for feedback."""
    del index
    current = compared(request)[1]
    labels = {"Pie recipe.": "[[New]]", "Thanks.": "[[Positive feedback]]", "Hm.": "I cannot say"}
    return labels.get(current, "[[Re-attempt with feedback]]")


def asked_pairs(config: ClassifyConfig) -> list[tuple[str, str]]:
    seen: list[tuple[str, str]] = []

    def reply(request: Request, index: int) -> str:
        if compared(request) not in seen:
            seen.append(compared(request))
        return judge(request, index)

    classify([TALK], ScriptedEngine(reply), config)
    return seen


def test_every_user_message_gets_a_label_and_the_first_is_initial() -> None:
    turns, dropped = classify([TALK], ScriptedEngine(judge), CONFIG)
    assert [(turn.id, turn.index, turn.label) for turn in turns] == [
        ("c/0", 0, "initial"),
        ("c/2", 2, "re-attempt with feedback"),
        ("c/4", 4, "new"),
        ("c/6", 6, "positive feedback"),
    ]
    assert dropped == []


def test_follow_up_is_compared_with_the_latest_new_request() -> None:
    assert asked_pairs(CONFIG) == [
        ("Cake recipe.", "Shorter."),
        ("Cake recipe.", "Pie recipe."),
        ("Pie recipe.", "Thanks."),
    ]


def test_follow_up_is_compared_as_configured() -> None:
    assert asked_pairs(replace(CONFIG, initial="first"))[-1] == ("Cake recipe.", "Thanks.")
    assert asked_pairs(replace(CONFIG, initial="previous"))[1] == ("Shorter.", "Pie recipe.")


def test_reply_that_names_no_label_is_dropped_and_not_guessed() -> None:
    row = talk("c", "Cake recipe.", "Take eggs.", "Hm.", "What?", "Shorter.", "Eggs.")
    turns, dropped = classify([row], ScriptedEngine(judge), CONFIG)
    assert [turn.id for turn in turns] == ["c/0", "c/4"]
    assert reasons(dropped) == {"c/2": "unreadable_label"}


def test_prompt_that_is_too_long_is_dropped() -> None:
    row = talk("c", "Cake recipe.", "Take eggs.", "word " * 500, "What?", "Shorter.", "Eggs.")
    turns, dropped = classify([row], ScriptedEngine(judge, max_prompt_tokens=400), CONFIG)
    assert [turn.id for turn in turns] == ["c/0", "c/4"]
    assert reasons(dropped) == {"c/2": "prompt_too_long"}


def test_system_message_is_no_turn() -> None:
    turns, _ = classify([talk("c", "system:Be kind.", "Hi.", "Hello.", "Thanks.")], ScriptedEngine(judge), CONFIG)
    assert [(turn.index, turn.label) for turn in turns] == [(1, "initial"), (3, "positive feedback")]


@pytest.mark.parametrize("choice", CHOICES)
def test_each_choice_gives_its_label(choice: str) -> None:
    scores = [0.0 if each == choice else -1.0 for each in CHOICES]
    assert best(scores, [0.0] * 4) == CHOICES[choice]


def test_best_label_is_the_one_furthest_above_its_prior() -> None:
    assert best([-1, -2, -3, -4], [0, 0, 0, 0]) == "new"
    assert best([-1, -2, -3, -4], [-1, -2, -3, -9]) == "positive feedback"
    assert best([-1, -1, -3, -4], [0, 0, 0, 0]) is None


def test_calibration_takes_away_what_an_empty_request_scores() -> None:
    def biased(request: Request, index: int) -> str:
        return "[[New]]" if EMPTY in compared(request) else judge(request, index)

    row = talk("c", "Cake recipe.", "Eggs.", "Pie recipe.", "Apples.", "Shorter.", "Pie.")
    plain, _ = classify([row], ScriptedEngine(biased), CONFIG)
    calibrated, dropped = classify([row], ScriptedEngine(biased), replace(CONFIG, calibrate=True))
    assert [turn.label for turn in plain] == ["initial", "new", "re-attempt with feedback"]
    assert [turn.label for turn in calibrated] == ["initial", "re-attempt with feedback"]
    assert reasons(dropped) == {"c/2": "unreadable_label"}  # no more than on an empty request, so nothing is above


def test_no_conversations_give_no_turns() -> None:
    assert classify([], ScriptedEngine(judge), CONFIG) == ([], [])


def test_run_counts_turns_and_label_shares(tmp_path: Path) -> None:
    def write(rows: Output[Conversation], config: object) -> None:
        rows.write([TALK, talk("d", "Cake recipe.", "Eggs.", "Hm.", "What?")], [], 2)

    script = tmp_path / "script.json"
    script.write_text(
        '[{"contains": "2nd request: Shorter.\\nClass", "reply": "[[Re-attempt with feedback]]"},'
        ' {"contains": "2nd request: Hm.", "reply": "?"}, {"contains": "", "reply": "[[New]]"}]'
    )
    config = ClassifyConfig(engine=replace(CONFIG.engine, kind="scripted", script=str(script)))
    execute(Call("ingest", write, {}, {}, "rows", Output(tmp_path / "a", Conversation), config))
    inputs = {"conversations": Input(tmp_path / "a", Conversation)}
    described = execute(Call("classify", run, inputs, {}, "turns", Output(tmp_path / "b", Turn), config))
    assert (described.rows_in, described.kept, described.dropped) == (6, 5, {"unreadable_label": 1})
    assert described.metrics == {
        "share/initial": 0.4,
        "share/re-attempt with feedback": 0.2,
        "share/new": 0.4,
    }
    assert described.prompt_hashes.keys() == {"prompt.j2"}

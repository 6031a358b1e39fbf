import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from rlhi.artifacts import Input, Output
from rlhi.classify.stage import EMPTY, LABELS, ClassifyConfig, classify, run
from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.manifest import Manifest
from rlhi.questions import UNREAD, Method, Said
from rlhi.records import Conversation, Label, Turn
from rlhi.rewrite.stage import RewriteConfig, rewrite
from rlhi.sample.stage import SampleConfig, sample
from tests.rows import personas, reasons, talk, together

CONFIG = ClassifyConfig()
SHORT = talk("s", "Cake recipe.", "Take eggs.", "Shorter.")
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
    turns, dropped, _ = classify([TALK], ScriptedEngine(judge), CONFIG)
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
    turns, dropped, _ = classify([row], ScriptedEngine(judge), CONFIG)
    assert [turn.id for turn in turns] == ["c/0", "c/4"]
    assert reasons(dropped) == {"c/2": "unreadable_label"}


def test_prompt_that_is_too_long_is_dropped() -> None:
    row = talk("c", "Cake recipe.", "Take eggs.", "word " * 500, "What?", "Shorter.", "Eggs.")
    turns, dropped, _ = classify([row], ScriptedEngine(judge, max_prompt_tokens=400), CONFIG)
    assert [turn.id for turn in turns] == ["c/0", "c/4"]
    assert reasons(dropped) == {"c/2": "prompt_too_long"}


def test_system_message_is_no_turn() -> None:
    turns, _, _ = classify([talk("c", "system:Be kind.", "Hi.", "Hello.", "Thanks.")], ScriptedEngine(judge), CONFIG)
    assert [(turn.index, turn.label) for turn in turns] == [(1, "initial"), (3, "positive feedback")]


@pytest.mark.parametrize("method", ["choose", "generate"])
@pytest.mark.parametrize("name", LABELS)
def test_each_name_gives_its_label(name: str, method: Method) -> None:
    turns, _, _ = classify([SHORT], ScriptedEngine(lambda *_: f"[[{name}]]"), replace(CONFIG, method=method))
    assert [turn.label for turn in turns] == ["initial", LABELS[name]]


def test_written_answer_is_read_and_kept() -> None:
    engine = ScriptedEngine(lambda *_: "The user adds a wish.\nRe-attempt with feedback.")
    turns, _, said = classify([SHORT], engine, replace(CONFIG, method="generate"))
    assert turns[1].label == "re-attempt with feedback"
    assert said == [Said("s/2", "Re-attempt with feedback", "The user adds a wish.\nRe-attempt with feedback.")]


@pytest.mark.parametrize("method", ["choose", "generate"])
@pytest.mark.parametrize(
    ("initial", "compared_with"), [("latest-new", "Pie recipe."), ("first", "Cake recipe."), ("previous", "Hm.")]
)
def test_unreadable_label_does_not_change_what_the_next_is_compared_with(
    method: Method, initial: Literal["latest-new", "first", "previous"], compared_with: str
) -> None:
    row = talk("c", "Cake recipe.", "Eggs.", "Pie recipe.", "Apples.", "Hm.", "What?", "Thanks.")
    seen: dict[str, str] = {}

    def reply(request: Request, index: int) -> str:
        first, second = compared(request)
        seen[second] = first
        return judge(request, index)

    turns, dropped, _ = classify([row], ScriptedEngine(reply), replace(CONFIG, method=method, initial=initial))
    assert seen["Thanks."] == compared_with
    assert reasons(dropped) == {"c/4": "unreadable_label"}
    assert [turn.label for turn in turns] == ["initial", "new", "positive feedback"]


def test_no_pair_comes_of_an_unreadable_label() -> None:
    row = talk("c", "Cake recipe.", "Take eggs.", "Hm.", "What?", "Shorter.", "Eggs.")
    turns, dropped, _ = classify([row], ScriptedEngine(judge), CONFIG)
    assert reasons(dropped) == {"c/2": "unreadable_label"}
    engine = ScriptedEngine(lambda _, i: f"Fig {i}")
    rewritten, _ = rewrite(turns, {"c": row}, personas("ann"), engine, RewriteConfig())
    sampled, _ = together(sample(turns, {"c": row}, personas("ann"), engine, SampleConfig(n=2, labels=get_args(Label))))
    assert [each.id for each in rewritten] == ["c/4"]
    assert [each.id for each in sampled] == ["c/0", "c/4"]


def test_calibration_takes_away_what_an_empty_request_scores() -> None:
    def biased(request: Request, index: int) -> str:
        return "[[New]]" if EMPTY in compared(request) else judge(request, index)

    row = talk("c", "Cake recipe.", "Eggs.", "Pie recipe.", "Apples.", "Shorter.", "Pie.")
    plain, _, _ = classify([row], ScriptedEngine(biased), CONFIG)
    calibrated, dropped, _ = classify([row], ScriptedEngine(biased), replace(CONFIG, calibrate=True))
    assert [turn.label for turn in plain] == ["initial", "new", "re-attempt with feedback"]
    assert [turn.label for turn in calibrated] == ["initial", "re-attempt with feedback"]
    assert reasons(dropped) == {"c/2": "unreadable_label"}  # no more than on an empty request, so nothing is above


def test_no_conversations_give_no_turns() -> None:
    assert classify([], ScriptedEngine(judge), CONFIG) == ([], [], [])


def run_on(rows: list[Conversation], rules: list[tuple[str, str]], folder: Path, **settings: Any) -> Manifest:
    def write(conversations: Output[Conversation], config: object) -> None:
        conversations.write(rows, [], len(rows))

    script = folder / "script.json"
    script.write_text(json.dumps([{"contains": contains, "reply": reply} for contains, reply in rules]))
    config = ClassifyConfig(engine=replace(CONFIG.engine, kind="scripted", script=str(script)), **settings)
    execute(Call("ingest", write, {}, {}, "conversations", Output(folder / "ingest", Conversation), config))
    inputs = {"conversations": Input(folder / "ingest", Conversation)}
    return execute(Call("classify", run, inputs, {}, "turns", Output(folder / "classify", Turn), config))


RULES = [
    ("2nd request: Shorter.\nClass", "[[Re-attempt with feedback]]"),
    ("2nd request: Hm.", "?"),
    ("2nd request:", "[[New]]"),
]


def test_run_counts_turns_and_shares_of_all_user_messages(tmp_path: Path) -> None:
    rows = [TALK, talk("d", "Cake recipe.", "Eggs.", "Hm.", "What?")]
    described = run_on(rows, RULES, tmp_path, meaningful_feedback=False)
    assert (described.rows_in, described.kept, described.dropped) == (6, 5, {"unreadable_label": 1})
    shares = {name: share for name, share in described.metrics.items() if name.startswith("share/")}
    assert shares == pytest.approx(
        {
            "share/initial": 2 / 6,
            "share/new": 2 / 6,
            "share/re-attempt with feedback": 1 / 6,
            "share/re-attempt without feedback": 0,
            "share/positive feedback": 0,
            "share/unreadable_label": 1 / 6,
            "share/prompt_too_long": 0,
        }
    )
    assert sum(shares.values()) == pytest.approx(1)
    assert described.notes["labels"].startswith("a script labelled 6 user messages of 2 conversations.")
    assert described.prompt_hashes.keys() == {"prompt.j2", "meaningful.j2"}


def test_shares_count_the_users_who_are_filtered(tmp_path: Path) -> None:
    described = run_on([SHORT], [*RULES, ("meaningful feedback", "[[No]]")], tmp_path)
    assert (described.rows_in, described.kept) == (2, 2)
    assert [turn.meaningful_feedback for turn in Input(tmp_path / "classify", Turn).read()] == [False, False]
    assert described.metrics["share/re-attempt with feedback"] == 0.5


def test_turns_of_a_user_without_meaningful_feedback_are_marked(tmp_path: Path) -> None:
    rows = [SHORT, talk("b", "Pie recipe.", "Apples.", "Shorter.", user="ben"), talk("e", "Hi.", "Yes?", user="eve")]
    rules = [*RULES, ("[The Start of User Messages]", "[[Yes]]")]
    described = run_on(rows, rules, tmp_path)
    assert described.dropped == {}
    marked = {turn.user_id: turn.meaningful_feedback for turn in Input(tmp_path / "classify", Turn).read()}
    assert marked == {"ann": True, "ben": True, "eve": False}
    assert {name: n for name, n in described.metrics.items() if name.startswith("meaningful")} == {
        "meaningful_feedback/users": 3,
        "meaningful_feedback/asked": 2,
        "meaningful_feedback/without": 1,
        "meaningful_feedback/unread": 0,
    }


def test_reply_without_a_label_is_kept_beside_the_turns(tmp_path: Path) -> None:
    run_on([SHORT], [("2nd request:", "Hard to say.")], tmp_path, method="generate", meaningful_feedback=False)
    assert json.loads((tmp_path / "classify" / UNREAD).read_text()) == {"id": "s/2", "reply": "Hard to say."}


def test_calibration_of_a_written_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"classify\.calibrate: .* method=generate has none; set calibrate=false"):
        run_on([SHORT], RULES, tmp_path, method="generate", calibrate=True)


def test_follow_ups_that_are_known_are_labelled_without_asking(tmp_path: Path) -> None:
    made = run_on([SHORT], [("", "never read")], tmp_path, known="re-attempt with feedback", meaningful_feedback=False)
    turns = Input(tmp_path / "classify", Turn).read()
    assert [(turn.id, turn.label) for turn in turns] == [("s/0", "initial"), ("s/2", "re-attempt with feedback")]
    assert made.metrics["share/re-attempt with feedback"] == 0.5
    assert made.metrics.get("replies/asked", 0) == 0
    assert not ClassifyConfig(known="new", meaningful_feedback=False).asks_models
    assert ClassifyConfig(known="new").asks_models

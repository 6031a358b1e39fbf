import json
from pathlib import Path

import pytest

from rlhi.artifacts import Output
from rlhi.classify.stage import LABELS
from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.questions import UNREAD, YES_NO, Method, Said, ask, best, keep_unread, named
from rlhi.records import Turn
from tests.rows import messages

NEW, WITH, WITHOUT, POSITIVE = LABELS


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        ("[[New]]", NEW),
        ("[New]", NEW),
        ("New", NEW),
        (" new.\n", NEW),
        ('"New"', NEW),
        ("“New.”", NEW),
        ("**New**", NEW),
        ("[[Re-attempt without feedback]]", WITHOUT),
        ("[[Re-attempt with feedback]].", WITH),
        ("[[re-attempt WITHOUT feedback.]]", WITHOUT),
        ("Re-attempt without feedback", WITHOUT),
        ("Re-attempt with feedback.", WITH),
        ("Reattempt  with\nfeedback", WITH),
        ("re attempt without feedback", WITHOUT),
        ("positive feedback!", POSITIVE),
        ("Classification: [[Positive feedback]]", POSITIVE),
        ("Classification: Positive feedback", POSITIVE),
        ("[[Positive feedback]] The user says thanks and asks for nothing new.", POSITIVE),
        ("Re-attempt with feedback. The user gives a new length.", WITH),
        ("Re-attempt with feedback - the poem should be shorter", WITH),
        ("The user repeats the request word for word, without feedback.\nRe-attempt without feedback", WITHOUT),
        ("The second request is new in part, but it corrects the first: [[Re-attempt with feedback]]", WITH),
        ("[[New]]? The topic is the same. [[Re-attempt with feedback]]", WITH),
        ("The labels are [New] and [Positive feedback]. [[Re-attempt with feedback]]", WITH),
        ("[[Re-attempt with feed", None),
        ("New or Re-attempt with feedback", None),
        ("New\nPositive feedback", None),
        ("Labels: New, Re-attempt with feedback, Re-attempt without feedback or Positive feedback", None),
        ("This is not positive feedback.", None),
        ('The user did not write "Positive feedback" here.', None),
        ("It repeats the request without feedback.", None),
        ("feedback", None),
        ("with feedback", None),
        ("A new request.", None),
        ("Newer", None),
        ("Renewal: none", None),
        ("[[Unclear]]", None),
        ("I cannot say.", None),
        ("", None),
        (" \n", None),
    ],
)
def test_written_label_is_read_or_null(reply: str, name: str | None) -> None:
    assert named(reply, list(LABELS)) == name


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        ("[[Yes]]", "Yes"),
        ("Yes, the user corrects the answers.", "Yes"),
        ("No. There is no feedback.", "No"),
        ("Verdict: [[No]]", "No"),
        ("[[No]] is what I would say, but on reflection [[Yes]].", "Yes"),
        ("Yes and No", None),
        ("There is no way to know.", None),
        ("Nothing", None),
        ("Yesterday.", None),
        ("", None),
    ],
)
def test_written_yes_or_no_is_read_or_null(reply: str, name: str | None) -> None:
    assert named(reply, YES_NO) == name


def test_best_name_is_the_one_furthest_above_its_prior() -> None:
    assert best("abcd", [-1, -2, -3, -4], [0, 0, 0, 0]) == "a"
    assert best("abcd", [-1, -2, -3, -4], [-1, -2, -3, -9]) == "d"
    assert best("abcd", [-1, -1, -3, -4], [0, 0, 0, 0]) is None


def question(key: str) -> Request:
    return Request(key, messages(f"{key}?"))


@pytest.mark.parametrize("method", ["choose", "generate"])
def test_answers_come_in_order_and_what_cannot_be_read_is_null(method: Method) -> None:
    replies = {"sure": "[[Yes]]", "unsure": "Perhaps.", "never": "[[No]]"}
    engine = ScriptedEngine(lambda request, _: replies[request.key])
    said = ask([question(key) for key in replies], YES_NO, engine, method)
    assert [(each.key, each.name) for each in said] == [("sure", "Yes"), ("unsure", None), ("never", "No")]


def test_reply_that_could_not_be_read_is_kept_word_for_word(tmp_path: Path) -> None:
    with Output(tmp_path / "turns", Turn) as output:
        keep_unread(output, [Said("a", "Yes", "Yes."), Said("b", None, "Où? “Perhaps.”"), Said("c", None, "")])
        (line,) = (output.partial / UNREAD).read_text().splitlines()
    assert json.loads(line) == {"id": "b", "reply": "Où? “Perhaps.”"}

import copy
import json
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi.ingest.reasoning import from_champ, from_prm800k
from rlhi.records import Conversation, Dropped, Reason, from_table, to_table
from rlhi.render import prompt

SHARED = Path(__file__).parents[2] / "shared" / "data"
STEPS = ["Two and two is five.", "Then I halve it.", "So we get 4.\n\n# Answer\n\n4"]


def prm(wrong: int | None = 1, steps: Any = STEPS, **more: Any) -> dict[str, Any]:
    """One row of phase 2 in which the labeller got as far as the step at ``wrong``."""
    seen = steps if wrong is None else steps[: wrong + 1]
    labelled = [completed(text, -1 if index == wrong else 1) for index, text in enumerate(seen)]
    question = {"problem": "What is 2+2?", "pre_generated_steps": steps, "ground_truth_answer": "5"}
    return {
        "is_quality_control_question": False,
        "is_initial_screening_question": False,
        "question": {**question, "pre_generated_answer": "4", **more},
        "label": {"steps": labelled, "finish_reason": "found_error" if wrong is not None else "solution"},
    }


def completed(text: str, rating: int | None, *others: tuple[str, int]) -> dict[str, Any]:
    said = [(text, rating), *others]
    return {"completions": [{"text": text, "rating": rating} for text, rating in said], "chosen_completion": None}


def champ(start: Any = 0, end: Any = 20, **more: Any) -> dict[str, Any]:
    """The data set with one annotated solution."""
    annotation = {"text": "Two and two is five. So it is 4.", "start_idx": start, "end_idx": end, "author": "GPT-4"}
    said = [{"role": "User", "text": "…"}, {"role": "Model.GPT-4", "text": "The sum is 4."}]
    problem = {"_text": "What is 2+2?", "_answer": "5", "fws_annotations": {"GPT-4|x": annotation}}
    conversations = {"GPT-4|x": {"messages": said}}
    return {"problems": {"P_1": {**problem, "conversations": conversations, **more}}, "concepts": {}, "hints": {}}


def kept(found: Conversation | Dropped) -> Conversation:
    assert isinstance(found, Conversation)
    return found


def comment(found: Conversation | Dropped) -> str:
    return kept(found).messages[-1].content


def only(data: Any, seed: int = 0) -> Conversation | Dropped:
    (found,) = from_champ(data, "v0.json", seed)
    return found


def test_user_asks_the_assistant_solves_and_the_user_names_the_first_wrong_step() -> None:
    found = kept(from_prm800k(prm(wrong=1), "rows:1"))
    asked, solved, remarked = found.messages
    assert [message.role for message in found.messages] == ["user", "assistant", "user"]
    assert asked.content == prompt("rlhi.ingest", "reasoning_request.j2", problem="What is 2+2?")
    assert "\\boxed{}" in asked.content
    assert solved.content.splitlines() == [*STEPS[:2], "So we get 4.", "The final answer is $\\boxed{4}$."]
    assert "step 2" in remarked.content
    assert "answer" not in remarked.content


def test_each_conversation_is_a_user_of_its_own_without_a_time() -> None:
    found = kept(from_prm800k(prm(), "rows:1"))
    assert (found.user_id, found.timestamp, found.split, found.language) == (found.id, None, "train", "English")
    assert from_table(Conversation, to_table(Conversation, [found])) == [found]


def test_right_final_answer_is_granted() -> None:
    wrong, right = (from_prm800k(prm(ground_truth_answer=truth), "x") for truth in ("5", "$\\frac{8}{2}$"))
    assert comment(right).startswith(comment(wrong))
    assert "correct" in comment(right) or "right final answer" in comment(right) or "itself is right" in comment(right)


@pytest.mark.parametrize("truth", [None, "", 4, "four", "2+2", "3"])
def test_final_answer_that_is_not_surely_right_is_not_praised(truth: Any) -> None:
    assert comment(from_prm800k(prm(ground_truth_answer=truth), "x")) == comment(from_prm800k(prm(), "x"))


def test_solution_that_was_labelled_twice_has_one_id() -> None:
    again = prm(wrong=0)
    again["labeler"] = "somebody else"
    ids = {kept(from_prm800k(row, "x")).id for row in (prm(wrong=1), again, prm(problem="What is 3+3?"))}
    assert len(ids) == 2


def test_wording_follows_seed_and_id() -> None:
    rows = [prm(problem=f"What is 2+{i}?", ground_truth_answer="4") for i in range(120)]
    said = [comment(from_prm800k(row, "x")) for row in rows]
    assert len(set(said)) == 15
    assert said == [comment(from_prm800k(row, "elsewhere")) for row in rows]
    assert said != [comment(from_prm800k(row, "x", seed=1)) for row in rows]


@pytest.mark.parametrize("wording", range(15))
@pytest.mark.parametrize("right", [True, False])
def test_every_wording_names_the_place_and_no_more(wording: int, right: bool) -> None:
    said = prompt("rlhi.ingest", "reasoning_comment.j2", place="step 3", answer_is_right=right, wording=wording)
    assert said.count("step 3") == 1
    assert said.count(". ") == right
    assert said.endswith((".", "though."))


def broken(**label: Any) -> dict[str, Any]:
    row = prm()
    row["label"] = {**row["label"], **label}
    return row


def renamed(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**row, **more}


UNUSABLE: list[tuple[str, Any]] = [
    ("not_a_record", None),
    ("not_a_record", []),
    ("not_a_record", {}),
    ("not_a_record", renamed(prm(), question="What?")),
    ("not_a_record", renamed(prm(), label=None)),
    ("not_a_record", prm(problem=" ")),
    ("not_a_record", prm(pre_generated_steps=None)),
    ("not_a_record", prm(pre_generated_steps=[])),
    ("not_a_record", prm(pre_generated_steps=["Two.", None])),
    ("quality_control", renamed(prm(), is_quality_control_question=True)),
    ("screening", renamed(prm(), is_initial_screening_question=True)),
    ("no_error_found", prm(wrong=None)),
    ("no_error_found", broken(finish_reason="give_up")),
    ("no_error_found", broken(finish_reason=None)),
    ("no_wrong_step", broken(steps=None)),
    ("no_wrong_step", broken(steps=[completed(STEPS[0], 1)])),
    ("no_wrong_step", broken(steps=[completed("Another step altogether.", -1)])),
    ("no_wrong_step", broken(steps=[{"completions": None}, {}, 3])),
]


@pytest.mark.parametrize(("reason", "row"), UNUSABLE)
def test_unusable_row_is_dropped_with_its_place_and_reason(reason: Reason, row: Any) -> None:
    assert from_prm800k(row, "rows:7") == Dropped("rows:7", reason)


def test_step_is_found_by_its_text_where_labels_are_out_of_place() -> None:
    row = broken(steps=[completed(STEPS[0], 1), completed("Left out.", 0), completed(STEPS[1], -1)])
    assert "step 2" in comment(from_prm800k(row, "x"))


def test_first_wrong_step_is_the_solutions_own_not_an_alternative() -> None:
    row = broken(
        steps=[completed(STEPS[0], 1, ("Five.", -1)), completed(STEPS[1], 1), completed(STEPS[2], -1, ("6", -1))]
    )
    assert "step 3" in comment(from_prm800k(row, "x"))


def test_text_that_stands_twice_is_the_step_that_was_labelled() -> None:
    steps = ["Again.", "Fine.", "Again."]
    assert "step 3" in comment(from_prm800k(prm(wrong=2, steps=steps), "x"))
    row = prm(wrong=2, steps=steps)
    row["label"]["steps"] = [completed("Fine.", 1), completed("Again.", -1)]
    assert from_prm800k(row, "x") == Dropped("x", "no_wrong_step")


@pytest.mark.parametrize(
    ("last", "lines"),
    [
        ("# Answer\n\n7200", ["The final answer is $\\boxed{7200}$."]),
        ("So.\n# Answer\n\n$x=2$", ["So.", "The final answer is $\\boxed{x=2}$."]),
        ("# Answer\n\n$3$ and $4$", ["The final answer is $3$ and $4$."]),
        ("# Answer\n\n\\$29", ["The final answer is $\\boxed{\\$29}$."]),
        ("We get\n\\[x\n=2\\]", ["We get \\[x =2\\]"]),
        ("# Answer", ["# Answer"]),
    ],
)
def test_every_step_is_a_line_and_the_answer_a_sentence(last: str, lines: list[str]) -> None:
    found = kept(from_prm800k(prm(wrong=0, steps=["One.", last]), "x"))
    assert found.messages[1].content.splitlines() == ["One.", *lines]


def test_braces_and_halves_of_characters_pass() -> None:
    found = kept(from_prm800k(prm(problem="{{ x }} {% if \ud83d"), "x"))
    assert found.messages[0].content.startswith("{{ x }} {% if ?\n")


def test_champ_user_quotes_the_wrong_part() -> None:
    found = kept(only(champ()))
    assert found.messages[0].content.startswith("What is 2+2?\n\n")
    assert found.messages[1].content == "Two and two is five. So it is 4."
    assert "the part that begins with “Two and two is five.”" in found.messages[2].content
    assert (found.model, found.user_id, found.timestamp) == ("GPT-4", found.id, None)


def test_long_wrong_part_is_quoted_to_a_word_unless_it_begins_like_another() -> None:
    long, other = "And so " + "on " * 40 + "it goes.", "And so " + "on " * 30
    for text, quote in [(long, f"And so {'on ' * 24}…"), (f"{long}\n{other}", long)]:
        data = champ()
        data["problems"]["P_1"]["fws_annotations"]["GPT-4|x"].update(text=text, start_idx=0, end_idx=len(long))
        assert f"“{quote}”" in comment(only(data))


@pytest.mark.parametrize(
    ("answer", "sentence", "right"),
    [
        ("4", "The sum is 4.", True),
        ("4", "The sum is $\\boxed{4}$, since two and two is four.", True),
        ("4", "There are exactly 4 such numbers.", True),
        ("4 (i.e., all values)", "The values are 4.", True),
        ("0 is the only possible value", "The only value is \\(x = 0\\).", True),
        ("No", "No, there is no such number.", True),
        ("No", "Nobody knows.", False),
        ("4", "Among 4 numbers none is 3.", False),
        ("4", "It is 3, or 4.", False),
        ("4", "", False),
        (None, "The sum is 4.", False),
    ],
)
def test_champ_answer_is_right_where_the_model_surely_stated_it(answer: Any, sentence: str, right: bool) -> None:
    data = champ(_answer=answer)
    data["problems"]["P_1"]["conversations"]["GPT-4|x"]["messages"][-1]["text"] = sentence
    assert (comment(only(data)) != comment(only(champ()))) == right


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("no_error_found", champ(None, None)),
        ("no_wrong_step", champ(0, 0)),
        ("no_wrong_step", champ(20, 21)),
        ("no_wrong_step", champ(5, 500)),
        ("no_wrong_step", champ(-3, 5)),
        ("no_wrong_step", champ("0", 5)),
        ("no_wrong_step", champ(3, None)),
        ("not_a_record", champ(_text=None)),
        ("not_a_record", champ(fws_annotations={"GPT-4|x": None})),
        ("not_a_record", champ(fws_annotations={"GPT-4|x": {"text": ""}})),
    ],
)
def test_unusable_annotation_is_dropped_with_its_place_and_reason(reason: Reason, data: Any) -> None:
    assert only(data) == Dropped("v0.json:P_1:GPT-4|x", reason)


@pytest.mark.parametrize("data", [None, [], {}, {"problems": []}])
def test_what_is_not_the_data_set_is_one_dropped_row(data: Any) -> None:
    assert only(data) == Dropped("v0.json", "not_a_record")


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared, which is absent here")
def test_real_rows_of_both_phases() -> None:
    lines = (SHARED / "math" / "prm800k-rows.jsonl").read_text().splitlines()
    found = [from_prm800k(json.loads(line), f"{number + 1}") for number, line in enumerate(lines)]
    second = found.pop(1)
    assert found == [
        Dropped("1", "no_error_found"),  # phase 1, solved
        Dropped("3", "no_error_found"),  # phase 1, solved
        Dropped("4", "no_error_found"),  # phase 1, solved
        Dropped("5", "no_error_found"),  # phase 1, given up
        Dropped("6", "screening"),  # phase 2, solved
    ]
    solved, remarked = kept(second).messages[1:]
    assert len(solved.content.splitlines()) == 13
    assert solved.content.splitlines()[6].startswith(
        "For the Democrats, there are 5! ways to order them in a line, but"
    )
    assert solved.content.endswith("\nThe final answer is $\\boxed{7200}$.")
    assert "step 7" in remarked.content
    assert "answer" not in remarked.content


def test_all_540_annotations_of_champ_are_accounted_for() -> None:
    data = json.loads(resources.files("champ_dataset").joinpath("dataset_files/v0.json").read_text())
    found = list(from_champ(data, "v0.json"))
    assert Counter(row.reason if isinstance(row, Dropped) else "kept" for row in found) == {
        "kept": 444,
        "no_error_found": 96,
    }
    rows = [row for row in found if isinstance(row, Conversation)]
    assert len({row.id for row in rows}) == 444
    assert Counter(row.model for row in rows) == {"GPT-3.5": 119, "GPT-4": 101, "GPT-4 Turbo": 89, "PaLM 2 Medium": 135}
    assert sum(". " in row.messages[-1].content.rpartition("”")[2] for row in rows) == 46  # right in the end
    quotes = [row.messages[-1].content.partition("“")[2].rpartition("”")[0].removesuffix(" …") for row in rows]
    assert all(quote in " ".join(row.messages[1].content.split()) for quote, row in zip(quotes, rows, strict=True))


LEAVES = st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=6) | st.sampled_from(STEPS)
NAMES = ["question", "label", "steps", "completions", "text", "rating", "problem", "problems", "fws_annotations"]
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn, good: dict[str, Any]) -> Any:
    """A good value with one thing in it replaced or removed, anywhere."""
    made = copy.deepcopy(good)
    node: Any = made
    while True:
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        inner = node[key]
        if isinstance(inner, dict | list) and inner and draw(st.integers(0, 2)):
            node = inner
        else:
            break
    if draw(st.booleans()):
        node[key] = draw(JSON)
    else:
        del node[key]
    return made


@given(JSON | mutated(prm()))
def test_any_row_becomes_a_conversation_or_a_dropped_row(row: Any) -> None:
    assert_closed(from_prm800k(row, "x"))


@given(JSON | mutated(champ()))
def test_any_value_in_place_of_champ_becomes_conversations_or_dropped_rows(data: Any) -> None:
    for found in from_champ(data, "x"):
        assert_closed(found)


def assert_closed(found: Conversation | Dropped) -> None:
    if isinstance(found, Dropped):
        assert found.reason in get_args(Reason)
        return
    assert [message.role for message in found.messages] == ["user", "assistant", "user"]
    assert all(message.content.strip() for message in found.messages)
    assert from_table(Conversation, to_table(Conversation, [found])) == [found]

"""The stage benchmark from published files to accuracies, with a scripted model."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest
from rlhi.analyze.estimates import Bootstrap
from rlhi.artifacts import Input, user_rows
from rlhi.benchmark import reasoning
from rlhi.benchmark.accuracy import accuracies, as_metrics, table
from rlhi.benchmark.checking import Checker
from rlhi.benchmark.items import Item, read_items
from rlhi.benchmark.stage import BenchmarkConfig, benchmark
from rlhi.cli import main
from rlhi.config import SamplingConfig
from rlhi.engine.scripted import ScriptedEngine
from rlhi.errors import InputError
from rlhi.paper import REASONING
from rlhi.records import Dropped, Grade, Suite
from tests.missing import LackingEngine

SNAPSHOTS = Path(__file__).parent / "snapshots"
MINERVA = {"problem": "How far?", "solution": "It is $\\boxed{1.5e3}$ m.", "type": "Walking (1.1)", "idx": 7}
OLYMPIAD = {
    "id": 12,
    "subfield": "Algebra",
    "context": None,
    "question": "Which $x$?",
    "final_answer": ["$1$,$\\frac{1}{2}$"],
    "is_multiple_answer": True,
    "unit": None,
    "error": None,
}
GPQA = {
    "Record ID": "rec1",
    "Question": "Which is a fig?",
    "Correct Answer": "the fig",
    "Incorrect Answer 1": "the pear",
    "Incorrect Answer 2": "the plum",
    "Incorrect Answer 3": "the lime",
    "High-level domain": "Fruit",
}
MMLU = {"question_id": 3, "question": "Pick.", "options": ["x", "y", "z"], "answer": "B", "category": "law"}
GSM = {"question": "How many?", "answer": "Two and two.\n#### 1,004"}
ALL: tuple[Suite, ...] = ("minerva", "olympiadbench", "gpqa", "mmlu-pro", "gsm8k")


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def read(source: str, seed: int = 0) -> list[Item]:
    return read_items(source, reasoning.FORMATS, seed)


def item(name: str, gold: str = "2", suite: Suite = "gsm8k", category: str | None = None) -> Item:
    return Item(suite, name, category, f"What is {name}?", gold)


def grade(item_id: str, score: float | None, **more: Any) -> Grade:
    plain = Grade("minerva", item_id, None, 0, "2", "", "stop", "2", score)
    return replace(plain, **more)


def test_suite_of_a_file_is_told_by_its_fields(tmp_path: Path) -> None:
    places = [write(tmp_path / f"{i}.jsonl", row) for i, row in enumerate((MINERVA, OLYMPIAD, GPQA, MMLU, GSM))]
    found = read(",".join(places))
    assert [each.suite for each in found] == list(ALL)
    assert [each.id for each in found] == ["minerva/7", "olympiadbench/12", "gpqa/rec1", "mmlu-pro/3", "gsm8k/1"]
    assert [each.category for each in found] == ["Walking (1.1)", "Algebra", "Fruit", "law", None]
    assert [each.gold for each in found][:2] == ["1.5e3", "$1$,$\\frac{1}{2}$"]
    assert [each.gold for each in found][3:] == ["B", "1,004"]


def test_prompts_ask_for_the_published_form_of_the_answer(tmp_path: Path) -> None:
    rows = (MINERVA, {**OLYMPIAD, "context": "Let $x>0$.", "unit": "$cm^2$"}, MMLU)
    places = [write(tmp_path / f"{i}.jsonl", row) for i, row in enumerate(rows)]
    shown = "\n=====\n".join(each.prompt for each in read(",".join(places)))
    assert shown + "\n" == (SNAPSHOTS / "benchmark-prompts.txt").read_text()


def test_order_of_gpqa_choices_hangs_on_seed_and_item_alone(tmp_path: Path) -> None:
    rows = [{**GPQA, "Record ID": f"rec{i}"} for i in range(40)]
    (whole, last) = (read(write(tmp_path / f"{n}.jsonl", *rows[-n:])) for n in (40, 1))
    assert whole[-1] == last[0]
    assert {each.gold for each in whole} == set("ABCD")
    for each in whole:
        assert f"({each.gold}) the fig" in each.prompt
    other = read(write(tmp_path / "other.jsonl", *rows), seed=1)
    assert [each.gold for each in other] != [each.gold for each in whole]


def test_tolerance_of_an_item_is_its_own(tmp_path: Path) -> None:
    (plain, rough) = read(write(tmp_path / "o.jsonl", OLYMPIAD, {**OLYMPIAD, "id": 13, "error": "1e-1"}))
    assert (plain.absolute, rough.absolute) == (1e-8, 0.1)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([MMLU, {**MMLU, "question_id": 4, "answer": "D"}], r"m\.jsonl: row 2: answer='D' is none of the 3 options"),
        ([MMLU, {**MMLU, "question": None}], r"m\.jsonl: row 2: question=None is no text"),
        ([MMLU, {"question": "x"}], r"m\.jsonl: row 2 has no answer, category, options, question_id"),
        ([MMLU, 3], r"m\.jsonl: row 2 is no JSON object"),
        ([MMLU, MMLU], r"2 items are mmlu-pro/3; give each file of a benchmark once"),
        ([{**MINERVA, "solution": "It is 4."}], r"m\.jsonl: row 1: solution boxes no answer"),
        ([{**GSM, "answer": "4"}], r"m\.jsonl: row 1: answer has no number after ####"),
        ([{**OLYMPIAD, "final_answer": "4"}], r"m\.jsonl: row 1: final_answer='4' is no list of texts"),
        ([{"prompt": "x"}], r"m\.jsonl: no file of these suites, which are told by their fields"),
    ],
)
def test_row_that_is_no_item_is_named(rows: Sequence[Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        read(write(tmp_path / "m.jsonl", *rows))


def test_file_of_another_benchmark_is_left_out(tmp_path: Path) -> None:
    places = [write(tmp_path / "a.jsonl", {"prompt": "Say hi."}), write(tmp_path / "b.jsonl", GSM)]
    assert [each.suite for each in read(",".join(places))] == ["gsm8k"]


def graded(items: Sequence[Item], engine: Any, config: BenchmarkConfig) -> tuple[list[Grade], list[Dropped]]:
    with Checker(10) as checker:
        groups = list(benchmark(items, engine, lambda answered: reasoning.grade(answered, checker), config))
    return [row for kept, _ in groups for row in kept], [row for _, dropped in groups for row in dropped]


def test_every_answer_is_graded_and_what_is_not_there_is_not_guessed() -> None:
    said = {0: "So \\boxed{2}.", 1: "So \\boxed{3}.", 2: "It must be 2", 3: "a b c \\boxed{2}."}
    engine = ScriptedEngine(lambda request, number: said[number])
    config = BenchmarkConfig(n=4, sampling=SamplingConfig(max_tokens=4))
    kept, dropped = graded([item("p")], engine, config)
    assert dropped == []
    assert [(row.sample, row.read, row.score) for row in kept] == [
        (0, "2", 1),
        (1, "3", 0),
        (2, None, None),
        (3, "2", 1),
    ]
    (cut,), _ = graded([item("p")], engine, replace(config, n=1, sampling=SamplingConfig(max_tokens=1)))
    assert (cut.finish_reason, cut.read, cut.score, cut.answer) == ("length", None, None, "So")


def test_item_without_all_its_answers_is_dropped_whole() -> None:
    engine = LackingEngine(ScriptedEngine(lambda *_: "\\boxed{2}"), {"of q": "unanswered", "of r": "filtered"})
    items = [item(name) for name in ("p", "of q", "of r")]
    kept, dropped = graded(items, engine, BenchmarkConfig(n=2))
    assert [row.item_id for row in kept] == ["p", "p"]
    assert dropped == [Dropped("of q", "unanswered"), Dropped("of r", "filtered")]


def test_items_beyond_the_cap_and_long_ones_are_not_asked() -> None:
    items = [item(f"p{i}") for i in range(6)] + [item(f"m{i}", suite="minerva") for i in range(3)]
    engine = ScriptedEngine(lambda *_: "\\boxed{2}", max_prompt_tokens=5)
    config = BenchmarkConfig(n=1, max_items=4, suites=ALL)
    kept, dropped = graded([*items, item("a very long one", suite="gpqa")], engine, config)
    assert len(kept) == 7
    assert {(row.id, row.reason) for row in dropped if row.reason != "prompt_cap"} == {
        ("a very long one", "prompt_too_long")
    }
    assert [row.item_id for row in kept] == [row.item_id for row in graded(items[::-1], engine, config)[0]][::-1]


def test_interval_is_over_problems_and_not_over_answers() -> None:
    few = [grade(f"p{i}", float(i % 2), sample=n) for i in range(10) for n in range(50)]
    many = [grade(f"p{i}", float(i % 2)) for i in range(10)]
    (one,), (other,) = (accuracies(rows, Bootstrap(500)) for rows in (few, many))
    assert one.right.value == other.right.value == 0.5
    assert (one.right.low, one.right.high) == (other.right.low, other.right.high)
    assert (one.right.count, one.right.users) == (500, 10)


def test_null_counts_as_wrong_and_what_the_others_say_stands_beside_it() -> None:
    rows = [grade("p", 1.0), grade("q", None, read=None, finish_reason="length"), grade("r", None), grade("s", 0.0)]
    (found,) = accuracies(rows, Bootstrap(200))
    assert (found.right.value, found.among_read.value) == (0.25, 0.5)
    assert (found.unread, found.uncompared, found.cut) == (1, 1, 1)
    metrics = as_metrics([found])
    assert (metrics["accuracy/minerva"], metrics["accuracy/minerva/among_read"]) == (0.25, 0.5)
    assert (metrics["accuracy/minerva/unread"], metrics["accuracy/minerva/cut"]) == (1, 1)
    assert "accuracy/mean" not in metrics


def test_mean_is_over_the_four_suites_of_the_paper_and_its_figures_stand_beside() -> None:
    rows = [grade(f"{suite}{i}", float(i < place), suite=suite) for place, suite in enumerate(ALL) for i in range(4)]
    found = accuracies(rows, Bootstrap(200))
    assert as_metrics(found)["accuracy/mean"] == (0 + 0.25 + 0.5 + 0.75) / 4
    lines = [[cell.strip() for cell in line.split("|")] for line in table(found, "a model").splitlines()]
    beside = {cells[1]: (cells[4], *cells[-3:-1]) for cells in lines if len(cells) > 3}
    assert beside["gpqa"] == ("50.0", "26.3", "33.1")
    assert beside["gsm8k"] == ("100.0", "", "")
    assert beside["mean"] == ("37.5", "26.5", "31.8")


def test_averages_of_table_4_are_those_the_paper_prints() -> None:
    assert [round(sum(known.values()) / 4, 1) for _, known in REASONING] == [26.5, 31.8]


def script(path: Path, **more: Any) -> dict[str, Any]:
    rules = [
        {"contains": "How far?", "reply": "\\boxed{1500 \\text{ m}}"},
        {"contains": "Which $x$?", "reply": "\\boxed{0.5, {n}}"},
        {"contains": "Pick.", "reply": "The answer is (C)."},
    ]
    path.write_text(json.dumps({"rules": rules, **more}))
    return {"engine": {"kind": "scripted", "script": str(path)}, "n": 2, "resamples": 100}


def test_published_files_become_grades_and_accuracies(tmp_path: Path) -> None:
    places = [write(tmp_path / f"{i}.jsonl", row) for i, row in enumerate((MINERVA, OLYMPIAD, MMLU, GSM))]
    config = json.dumps(script(tmp_path / "script.json"))
    assert main(["benchmark", "--items", ",".join(places), "--grades", str(tmp_path / "out"), "--config", config]) == 0
    made = manifest.load(tmp_path / "out")
    assert (made.rows_in, made.kept, made.dropped) == (3, 3, {})  # gsm8k is graded by choice
    assert user_rows(tmp_path / "out") == {}
    rows = Input(tmp_path / "out", Grade).read()
    assert [(row.item_id, row.sample, row.score) for row in rows] == [
        ("minerva/7", 0, 1),
        ("minerva/7", 1, 1),
        ("olympiadbench/12", 0, 0),
        ("olympiadbench/12", 1, 1),
        ("mmlu-pro/3", 0, 0),
        ("mmlu-pro/3", 1, 0),
    ]
    assert made.metrics["accuracy/olympiadbench"] == 0.5
    assert "| minerva | 1 | 2 | 100.0 |" in (tmp_path / "out" / "accuracy.md").read_text()


def test_benchmark_after_its_shards_is_benchmark_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = write(tmp_path / "m.jsonl", *({**MINERVA, "idx": i, "problem": f"How far? {i}"} for i in range(9)))
    log = tmp_path / "asked.txt"
    config = json.dumps(script(tmp_path / "script.json", log=str(log)))
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))

    def run(name: str, *flags: str) -> Path:
        argv = ["benchmark", "--items", items, "--grades", str(tmp_path / name), "--config", config]
        assert main([*argv, *flags]) == 0
        return tmp_path / name

    for number in (3, 2, 1):
        made = manifest.load(run(f"shard-{number}", "--shard", f"{number}/3"))
        assert (made.record, made.kept) == ("Shard", 0)
    asked = sorted(log.read_text().split("\n"))
    assert len(set(asked)) == len(asked) == 9 * 2 + 1
    assert len(Input(run("joined"), Grade).read()) == 18
    assert sorted(log.read_text().split("\n")) == asked

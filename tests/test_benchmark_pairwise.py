"""A judge of AlpacaEval and Arena-Hard: what it is shown, how it is read, and whose answers are to be beaten."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhi.benchmark.alpaca_eval.judge import share_of_first
from rlhi.benchmark.contests import Judgement, one_order
from rlhi.benchmark.items import Answered, Item, read_items
from rlhi.benchmark.opponents import FORMATS, with_opponent
from rlhi.benchmark.pairwise import Referee
from rlhi.config import EngineConfig, ModelConfig, SamplingConfig, ServerConfig
from rlhi.engine import Drawing, Engine, Request
from rlhi.engine.http.engine import HttpEngine
from rlhi.engine.scripted import ScriptedEngine
from rlhi.errors import InputError
from rlhi.records import Suite
from tests.chat_server import ChatServer
from tests.missing import LackingEngine

QUESTIONS = Path(__file__).parents[2] / "shared" / "data" / "bench" / "arena-hard-v0.1-questions.jsonl"
DRAWING = Drawing(SamplingConfig(), 1, 0)


def answered(name: str, suite: Suite = "alpaca-eval", text: str = "GOOD", gold: str = "BAD") -> Answered:
    return Answered(Item(suite, name, None, f"Question {name}?", gold), 0, text, "stop")


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def compare(engine: Engine, *answers: Answered, both: bool = True, opponent: Engine | None = None) -> list[Judgement]:
    return Referee(engine, opponent, DRAWING, both).compare(answers)


def likes(what: str, first: str, second: str) -> Callable[[Request, int], str]:
    """A judge's reply: the first where ``what`` is shown first, else the second."""

    def reply(request: Request, _: int) -> str:
        shown = request.messages[-1].content
        return first if shown.index("GOOD") < shown.index("BAD") else second

    return reply if what == "GOOD" else lambda request, number: {first: second, second: first}[reply(request, number)]


def letter(token: str, **probabilities: float) -> dict[str, Any]:
    """A server's reply of one token, and the probabilities of those that could stand in its place."""
    top = [{"token": each, "logprob": math.log(p)} for each, p in probabilities.items()]
    content = [{"token": token, "logprob": math.log(probabilities[token]), "top_logprobs": top}]
    return {"message": {"content": token}, "finish_reason": "stop", "logprobs": {"content": content}}


def test_share_is_the_probability_among_the_two_letters() -> None:
    assert share_of_first([math.log(0.6), math.log(0.2)]) == pytest.approx(0.75)
    assert share_of_first([-1000.0, -1.0]) == 0
    assert share_of_first([-0.5, -0.5]) is None
    assert (share_of_first([0, -1]), share_of_first([-1, 0])) == (1, 0)  # which one, and not by how much


def test_share_is_the_models_in_either_position() -> None:
    def says(body: dict[str, Any], sample: int) -> dict[str, Any]:
        shown = body["messages"][-1]["content"]
        good, bad = ("m", "M") if shown.index("GOOD") < shown.index("BAD") else ("M", "m")
        return letter(good, **{good: 0.6, bad: 0.2, "I": 0.2})

    with ChatServer(says) as server:
        engine = HttpEngine(ModelConfig(id="judge"), ServerConfig(url=server.url))
        found = compare(engine, answered("q"))
    assert [(each.order, each.label, each.weight) for each in found] == [
        ("model-first", "m", 1),
        ("opponent-first", "M", 1),
    ]
    assert [each.won for each in found] == pytest.approx([0.75, 0.75])
    assert server.bodies[0]["structured_outputs"] == {"choice": ["m", "M"]}


def test_outputs_that_are_the_same_are_a_draw_that_nobody_is_asked_about() -> None:
    def refuses(request: Request, _: int) -> str:
        raise AssertionError(request.key)

    found = compare(ScriptedEngine(refuses), answered("q", text="Same.", gold="Same."))
    assert [each.won for each in found] == [0.5, 0.5]


def test_order_is_drawn_by_seed_and_item() -> None:
    drawn = [one_order(f"q{n}", 0) for n in range(200)]
    assert 70 < drawn.count("model-first") < 130
    assert drawn == [one_order(f"q{n}", 0) for n in range(200)]
    assert drawn != [one_order(f"q{n}", 1) for n in range(200)]
    engine = ScriptedEngine(likes("GOOD", "m", "M"))
    found = compare(engine, *(answered(f"q{n}") for n in range(20)), both=False)
    assert [each.order for each in found] == drawn[:20]
    assert {each.won for each in found} == {1.0}


def test_arena_hard_is_played_in_both_positions_whatever_the_choice() -> None:
    engine = ScriptedEngine(likes("BAD", "Mine is 4. [[A>>B]]", "Mine is 4. [[B>A]]"))
    found = compare(engine, answered("q", "arena-hard"), both=False)
    assert [(each.order, each.label, each.won, each.weight) for each in found] == [
        ("model-first", "B>A", 0.0, 1),
        ("opponent-first", "A>>B", 0.0, 3),
    ]
    assert [each.text for each in found] == ["Mine is 4. [[B>A]]", "Mine is 4. [[A>>B]]"]


def test_verdict_that_cannot_be_read_is_null_and_its_text_kept() -> None:
    found = compare(ScriptedEngine(lambda *_: "Neither."), answered("q"), answered("r", "arena-hard"))
    assert [(each.won, each.label, each.missing) for each in found] == [(None, None, None)] * 4
    assert [each.text for each in found] == ["", "", "Neither.", "Neither."]


@pytest.mark.parametrize("suite", ["alpaca-eval", "arena-hard"])
def test_judge_that_gives_no_answer_leaves_null_and_why(suite: Suite) -> None:
    engine = LackingEngine(
        ScriptedEngine(likes("GOOD", "m", "M") if suite == "alpaca-eval" else likes("GOOD", "[[A>B]]", "[[B>A]]")),
        {"Question q?": "unanswered", "Question r?": "filtered"},
    )
    found = compare(engine, *(answered(name, suite) for name in "qrs"))
    assert [(each.item_id, each.won, each.missing) for each in found[::2]] == [
        ("q", None, "unanswered"),
        ("r", None, "filtered"),
        ("s", 1.0, None),
    ]


def test_question_too_long_for_the_judge_is_null() -> None:
    engine = ScriptedEngine(lambda *_: "[[A=B]]", max_prompt_tokens=20)
    found = compare(engine, answered("q"), answered("r", "arena-hard"))
    assert [(each.won, each.missing) for each in found] == [(None, "prompt_too_long")] * 4


def test_grade_is_the_share_over_what_could_be_read() -> None:
    said = {"model-first": "[[A>>B]]", "opponent-first": "[[A>B]]"}
    engine = ScriptedEngine(lambda request, _: said[request.key.split()[-1]])
    referee = Referee(engine, None, DRAWING, False)
    (won,) = referee.grade([answered("q", "arena-hard")])
    assert (won.score, won.read, won.gold, won.answer) == (3 / 4, "A>>B, A>B", "BAD", "GOOD")
    said["opponent-first"] = "?"
    (half,) = referee.grade([answered("r", "arena-hard")])
    assert (half.score, half.read) == (1.0, "A>>B")
    said["model-first"] = "?"
    (null,) = referee.grade([answered("s", "arena-hard")])
    assert (null.score, null.read) == (None, None)
    assert [each.item_id for each in referee.judgements] == ["q", "q", "r", "r", "s", "s"]


def test_cost_of_a_paid_judge_is_told_before_it_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    server = ServerConfig(price_in=1e6, price_out=1e5, max_cost=9.0)
    paid = EngineConfig(kind="openai", model=ModelConfig(id="judge"), server=server)
    caplog.set_level("INFO", "rlhi")
    told: list[str] = []

    def reply(*_: Any) -> str:
        told[:] = caplog.messages
        return "[[A>B]]"

    engine = ScriptedEngine(reply)
    same = answered("s", text="GOOD", gold="GOOD")
    Referee(engine, None, DRAWING, True, paid).compare([answered("q"), same, answered("r", "arena-hard")])
    prompts = {each.split()[1].rstrip(":"): int(each.split("about ")[1].split()[0]) for each in told}
    assert list(prompts) == ["alpaca-eval", "arena-hard"]
    for line, longest in zip(told, (1, 4096), strict=True):
        tokens = prompts[line.split()[1].rstrip(":")]
        assert "2 questions to the judge" in line
        assert f"${tokens:.2f} to ${tokens + 2 * longest / 10:.2f} (judge.server.max_cost=9.0)" in line


def test_other_model_can_be_the_one_to_beat() -> None:
    opponent = ScriptedEngine(lambda request, _: f"BAD {request.key}", max_prompt_tokens=3)
    lacking = LackingEngine(opponent, {"Question r?": "filtered"})
    lacking.max_prompt_tokens = 3
    engine = ScriptedEngine(likes("GOOD", "[[A>B]]", "[[B>A]]"))
    long = Answered(Item("arena-hard", "s", None, "A question of many words?", ""), 0, "GOOD", "stop")
    found = compare(engine, *(answered(name, "arena-hard", gold="") for name in "qr"), long, opponent=lacking)
    assert {(each.item_id, each.gold, each.won, each.missing) for each in found} == {
        ("q", "BAD q", 1.0, None),
        ("r", "", None, "filtered"),
        ("s", "", None, "prompt_too_long"),
    }


def questions(folder: Path, *names: str) -> list[Item]:
    rows = [{"uid": name, "category": "arena-hard-v0.1", "prompt": f"Question {name}?"} for name in names]
    return read_items(write(folder / "questions.jsonl", *rows), FORMATS, 0)


PUBLISHED: list[dict[str, Any]] = [
    {"question_id": "a", "model_id": "x", "choices": [{"index": 0, "turns": [{"content": "One."}]}]},
    {"uid": "a", "model": "x", "messages": [{"role": "user", "content": "?"}, {"content": {"answer": "One."}}]},
    {"uid": "a", "messages": [{"role": "assistant", "content": "One."}]},
    {"uid": "a", "output": "One."},
]


@pytest.mark.parametrize("row", PUBLISHED)
def test_published_answers_are_those_to_beat(row: Any, tmp_path: Path) -> None:
    (item,) = with_opponent(questions(tmp_path, "a"), write(tmp_path / "answers.jsonl", row))
    assert (item.id, item.prompt, item.gold) == ("arena-hard/a", "Question a?", "One.")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (PUBLISHED[:1], r"opponent_answers=.*: 1 questions have no answer to beat there, the first is arena-hard/b"),
        ([{"uid": "a"}], r"answers\.jsonl: row 1 is no answer to Arena-Hard; it needs uid and messages"),
        ([{"uid": "a", "output": None}], r"answers\.jsonl: row 1 is no answer"),
        ([3], r"answers\.jsonl: row 1 is no answer"),
        ([*PUBLISHED[:1], {"uid": "a", "output": "Two."}], r"row 2: uid='a' has another answer before"),
    ],
)
def test_answers_that_are_none_are_named(rows: Sequence[Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        with_opponent(questions(tmp_path, "a", "b"), write(tmp_path / "answers.jsonl", *rows))


def test_questions_without_answers_to_beat_say_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give a file of the baseline's answers, or a model: pairwise\.opponent"):
        with_opponent(questions(tmp_path, "a"), "")


def test_alpaca_eval_is_a_models_outputs_which_are_those_to_beat(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"dataset": "koala", "instruction": "Say hi.", "output": "Hi!", "generator": "gpt4"},
        {"x": 1},
    ]
    place = tmp_path / "alpaca_eval.json"
    place.write_text(json.dumps(rows[:1], indent=2))  # one JSON array, as published
    (item,) = with_opponent(read_items(str(place), FORMATS, 0), "")
    assert item == Item("alpaca-eval", "alpaca-eval/0", "koala", "Say hi.", "Hi!")
    with pytest.raises(InputError, match=r"alpaca\.jsonl: row 2: output=5 is no text"):
        read_items(write(tmp_path / "alpaca.jsonl", rows[0], {**rows[0], "output": 5}), FORMATS, 0)


@pytest.mark.skipif(not QUESTIONS.exists(), reason="needs ../shared, which is absent here")
def test_published_questions_are_read() -> None:
    found = read_items(str(QUESTIONS), FORMATS, 0)
    assert len({item.id for item in found}) == 500
    assert {item.suite for item in found} == {"arena-hard"}

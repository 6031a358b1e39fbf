from dataclasses import replace

import pytest

from rlhi.config import SamplingConfig
from rlhi.engine import Reply, Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.records import Candidates, Conversation, Dropped
from rlhi.sample import stage
from rlhi.sample.stage import SampleConfig, distinct, sample
from tests.rows import messages, personas, reasons, talk, together, turn

CONFIG = SampleConfig(n=3)
PERSONAS = personas("ann")
ENGINE = ScriptedEngine(lambda request, index: f"{request.messages[-1].content} {index}")
TALK = talk("c", "Fruit?", "Fig.", "Shorter.", "Fig", "Nut?", "Hazel.")
TURNS = [turn(TALK, 0, "initial"), turn(TALK, 2, "re-attempt with feedback"), turn(TALK, 4, "new")]


def run(
    rows: list[Conversation], config: SampleConfig = CONFIG, engine: ScriptedEngine = ENGINE
) -> tuple[list[Candidates], list[Dropped]]:
    turns = [turn(row, 0, "initial") for row in rows]
    return together(sample(turns, {row.id: row for row in rows}, PERSONAS, engine, config))


def many(count: int) -> list[Conversation]:
    return [talk(f"c{i}", f"Fruit {i}?", "Fig.") for i in range(count)]


def test_initial_and_new_requests_are_answered_n_times_in_their_context() -> None:
    kept, dropped = together(sample(TURNS, {"c": TALK}, PERSONAS, ENGINE, CONFIG))
    assert [(row.id, row.context, row.persona, row.follow_up) for row in kept] == [
        ("c/0", messages("Fruit?"), "- short", None),
        ("c/4", TALK.messages[:5], "- short", None),
    ]
    assert [answer.text for answer in kept[0].answers] == ["Fruit? 0", "Fruit? 1", "Fruit? 2"]
    assert {(answer.source, answer.finish_reason, answer.reward) for answer in kept[0].answers} == {
        ("sample", "stop", None)
    }
    assert reasons(dropped) == {"c/2": "other_label"}


def test_labels_choose_the_prompts() -> None:
    kept, _ = together(
        sample(TURNS, {"c": TALK}, PERSONAS, ENGINE, replace(CONFIG, labels=("re-attempt with feedback",)))
    )
    assert [row.id for row in kept] == ["c/2"]


def test_model_knows_the_persona() -> None:
    engine = ScriptedEngine(lambda request, index: f"{request.persona} {index}")
    assert run([TALK], engine=engine)[0][0].answers[0].text == "- short 0"


def test_turn_without_conversation_or_persona_or_for_evaluation_is_dropped() -> None:
    rows = [
        talk("ben", "Hi.", "Yes?", user="ben"),
        talk("held", "Hi.", "Yes?", split="held-out"),
        talk("reference", "Hi.", "Yes?", split="reference"),
        talk("gone", "Hi.", "Yes?"),
    ]
    turns = [turn(row, 0, "initial") for row in rows]
    kept, dropped = together(sample(turns, {row.id: row for row in rows[:3]}, PERSONAS, ENGINE, CONFIG))
    assert kept == []
    assert reasons(dropped) == {
        "ben/0": "no_persona",
        "held/0": "held_out",
        "reference/0": "held_out",
        "gone/0": "conversation_dropped",
    }


def test_prompt_that_is_too_long_is_dropped() -> None:
    engine = ScriptedEngine(lambda request, index: str(index), max_prompt_tokens=5)
    _, dropped = run([talk("c", "word " * 9, "Yes?")], engine=engine)
    assert reasons(dropped) == {"c/0": "prompt_too_long"}


def test_cap_takes_so_many_prompts_by_seed_and_keeps_their_order() -> None:
    rows = many(20)
    kept, dropped = run(rows, replace(CONFIG, max_prompts=5))
    assert len(kept) == 5
    assert set(reasons(dropped).values()) == {"prompt_cap"}
    taken = [row.id for row in kept]
    assert taken == [f"{row.id}/0" for row in rows if f"{row.id}/0" in taken]
    assert {row.id for row in run(rows[::-1], replace(CONFIG, max_prompts=5))[0]} == set(taken)
    assert {row.id for row in run(rows, replace(CONFIG, max_prompts=5, seed=1))[0]} != set(taken)


def test_each_round_takes_the_next_prompts_and_the_first_again_after_the_last() -> None:
    rows = many(20)
    taken = [{row.id for row in run(rows, replace(CONFIG, max_prompts=8, round=number))[0]} for number in (1, 2, 3)]
    assert [len(own) for own in taken] == [8, 8, 8]
    assert not taken[0] & taken[1]
    assert len(taken[2] - taken[0] - taken[1]) == 4
    assert len(taken[2] & taken[0]) == 4
    assert [row.id for row in run(rows, replace(CONFIG, round=2))[0]] == [f"{row.id}/0" for row in rows]


def reply(text: str, cut: bool = False) -> Reply:
    return Reply(text, "length" if cut else "stop", -1.0)


def test_answers_are_whole_and_different() -> None:
    answers, reason = distinct([reply("a"), reply("b", True), reply("a"), reply(""), reply("c")], keep_cut=False)
    assert ([answer.text for answer in answers], reason) == (["a", "c"], None)


def test_cut_answers_can_be_kept() -> None:
    answers, reason = distinct([reply("a", True), reply("b", True)], keep_cut=True)
    assert ([answer.text for answer in answers], reason) == (["a", "b"], None)


def test_reason_tells_cut_from_repeated_answers() -> None:
    assert distinct([reply("a"), reply("b", True)], keep_cut=False)[1] == "cut_by_length"
    assert distinct([reply("a"), reply("a")], keep_cut=False)[1] == "too_few_answers"


def test_prompt_with_one_answer_left_is_dropped() -> None:
    same = ScriptedEngine(lambda *_: "Fig.")
    assert run([TALK], engine=same) == ([], [Dropped("c/0", "too_few_answers")])
    long = ScriptedEngine(lambda _, index: f"word {index} word")
    short = replace(CONFIG, sampling=SamplingConfig(max_tokens=2))
    assert run([TALK], short, long) == ([], [Dropped("c/0", "cut_by_length")])
    assert len(run([TALK], replace(short, keep_cut=True), long)[0][0].answers) == 3


def test_request_that_repeats_gets_its_own_answers() -> None:
    def key(request: Request, index: int) -> str:
        return f"{request.key} {index}"

    kept, _ = run([talk("c", "Hi.", "Yes?"), talk("d", "Hi.", "Yes?")], engine=ScriptedEngine(key))
    assert [row.answers[0].text for row in kept] == ["c/0 0", "d/0 0"]


def test_prompts_are_answered_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = many(7)
    whole = run(rows)
    monkeypatch.setattr(stage, "TOGETHER", 3)
    heard: list[str] = []
    engine = ScriptedEngine(
        lambda request, index: f"{request.messages[-1].content} {index}", hear=lambda key, _: heard.append(key)
    )
    turns = [turn(row, 0, "initial") for row in rows]
    groups = sample(turns, {row.id: row for row in rows}, PERSONAS, engine, CONFIG)
    assert [row.id for row in next(groups)[0]] == ["c0/0", "c1/0", "c2/0"]
    assert set(heard) == {"c0/0", "c1/0", "c2/0"}
    assert together([(whole[0][:3], []), *groups]) == whole

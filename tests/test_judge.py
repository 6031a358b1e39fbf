from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import get_args

import pytest

from rlhi.config import EngineConfig, ModelConfig, SamplingConfig, ServerConfig
from rlhi.conversations import transcript
from rlhi.engine import Reply, Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.evaluate.bearing import with_bearing
from rlhi.evaluate.judge import estimate, judge, read_verdict, written_verdict
from rlhi.questions import Method
from rlhi.records import Verdict
from tests.contests import AXES, CONFIG, OTHER, TURN, contest, judged, prefers
from tests.rows import messages


def test_judge_sees_both_orders_and_follows_the_answer() -> None:
    verdicts = judged([contest()], ["usereval"], prefers("OURS"))
    assert verdicts == [
        Verdict("c/0", "ann", "initial", "log", "persona-guided", "usereval", "model-first", "OURS", "THEIRS", "A"),
        Verdict("c/0", "ann", "initial", "log", "persona-guided", "usereval", "opponent-first", "THEIRS", "OURS", "B"),
    ]


def test_every_contest_is_judged_on_every_axis() -> None:
    contests = [contest(turn, mode=mode) for turn in (TURN, OTHER) for mode in CONFIG.modes]
    verdicts = judged(contests, AXES, prefers("OURS"))
    seen = {(each.turn_id, each.mode, each.axis, each.order) for each in verdicts}
    assert len(verdicts) == len(seen) == 2 * 2 * 3 * 2


def test_judge_reads_the_persona_except_for_instruction_following() -> None:
    shown: dict[str, str] = {}
    for axis in AXES:

        def reply(request: Request, _: int, axis: str = axis) -> str:
            shown[axis] = request.messages[-1].content
            return "[A]"

        judged([contest(OTHER)], [axis], ScriptedEngine(reply))
    assert {axis for axis, text in shown.items() if "- long" in text} == {"personalization", "usereval"}
    assert all("User: Hi.\n\nAssistant: Hello.\n\nUser: Name a nut." in text for text in shown.values())


def test_verdict_that_cannot_be_read_is_null() -> None:
    assert {each.winner for each in judged([contest()], AXES, ScriptedEngine(lambda *_: "Both."))} == {None}
    assert {each.winner for each in judged([contest()], AXES, ScriptedEngine(lambda *_: "[A]", 10))} == {None}
    assert [read_verdict(scores) for scores in ([-1.0, -1.0], [-1, -2], [-2, -1])] == [None, "A", "B"]


class Leaning(ScriptedEngine):
    """A judge that likes OURS a little and [A] a lot, whatever it reads."""

    def weigh(self, requests: Sequence[Request], choices: Sequence[str]) -> Iterator[tuple[int, list[float]]]:
        for place, (a, b) in prefers("OURS").weigh(requests, choices):
            yield place, [a + 5, b] if "OURS" in requests[place].messages[-1].content else [4.5, 0.0]


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        ("[A]", "A"),
        ("[[B]]", "B"),
        ("First [B] seems better, but it is wrong. **[A]**", "A"),
        ("<think>[A] or [B]?</think>\n[ B ].", "B"),
        ("<think>It is [A].</think> I cannot tell.", None),
        ("Both are good: [C]", None),
        ("[A] is better than [B], so it is a tie: [C].", None),
        ("A", None),
        ("[a]", None),
        ("", None),
    ],
)
def test_written_verdict_is_the_last_letter_in_brackets(text: str, winner: str | None) -> None:
    found = written_verdict(Reply(text, "stop", None))
    assert (found.winner, found.said) == (winner, text)
    assert found.unread == (None if winner else "unreadable")


def test_verdict_that_was_cut_while_the_judge_was_thinking_is_none() -> None:
    assert written_verdict(Reply("At first sight [A] is better, but", "length", None)).unread == "unreadable"
    assert written_verdict(Reply("", "stop", None, "filtered")).unread == "filtered"


def test_verdict_without_a_winner_says_why() -> None:
    cases = [(ScriptedEngine(lambda *_: "Both."), "tied"), (ScriptedEngine(lambda *_: "[A]", 10), "prompt_too_long")]
    for engine, why in cases:
        assert {each.unread for each in judged([contest()], AXES, engine)} == {why}


def test_one_order_is_drawn_by_seed_and_is_that_of_the_turn_in_every_contest() -> None:
    turns = [replace(TURN, id=f"c/{i}") for i in range(40)]
    contests = [contest(turn, mode=mode) for turn in turns for mode in CONFIG.modes]
    found = {}
    for seed in (0, 1):
        config = replace(CONFIG, orders="one", seed=seed)
        verdicts = judge(contests, prefers("OURS"), config)
        assert len(verdicts) == len(contests) * len(AXES)
        assert {_ours(each) for each in verdicts} == {True}
        found[seed] = {(each.turn_id, each.order) for each in verdicts}
        assert len(found[seed]) == len(turns)
        assert 10 < sum(order == "model-first" for _, order in found[seed]) < 30
    assert found[0] != found[1]


def _ours(verdict: Verdict) -> bool:
    return (verdict.winner == "A") == (verdict.order == "model-first")


def test_estimate_tells_questions_tokens_and_dollars_before_the_first_is_asked() -> None:
    server = ServerConfig(price_in=2.0, price_out=8.0, max_cost=5.0)
    paid = EngineConfig(kind="openai", model=ModelConfig(id="judge"), server=server)
    config = replace(CONFIG, judge=paid, method="generate", judge_sampling=SamplingConfig(max_tokens=1000))
    assert estimate([50_000, 50_000], config) == (
        "evaluate: 2 questions to the judge, about 100,000 prompt tokens and at most 2,000 of answers: $0.20 to $0.22"
        " (judge.server.max_cost=5.0); what is in the store of replies is not asked again"
    )


@pytest.mark.parametrize("method", get_args(Method))
def test_judge_says_whether_a_persona_matters_or_it_stays_open(method: Method) -> None:
    said = {"c/0": "[[No]]", "d/2": "[[Yes]]", "e/0": "Perhaps."}
    turns = [TURN, OTHER, replace(TURN, id="e/0")]
    engine = ScriptedEngine(lambda request, _: said[request.key])
    found = with_bearing(turns, engine, replace(CONFIG, method=method))
    assert [turn.persona_matters for turn in found] == [False, True, None]
    assert [replace(turn, persona_matters=None) for turn in found] == turns


def test_calibrated_judge_is_freed_from_its_love_of_a_letter() -> None:
    winners = [
        [each.winner for each in judged([contest()], ["usereval"], Leaning(lambda *_: ""), calibrate=calibrate)]
        for calibrate in (False, True)
    ]
    assert winners == [["A", "A"], ["A", "B"]]


def test_transcript_names_who_spoke() -> None:
    assert transcript(messages("system:Be kind.", "Hi.", "Yes?")) == "System: Be kind.\n\nUser: Hi.\n\nAssistant: Yes?"

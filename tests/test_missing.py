"""What a model gave no answer to leaves for that reason, and nothing is guessed in its place."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from rlhi.analyze import traits
from rlhi.artifacts import Output
from rlhi.classify.stage import ClassifyConfig, classify
from rlhi.config import SamplingConfig, StageConfig
from rlhi.engine import FILTERED, UNANSWERED, Reply, Request, Scores, choose, generate, tally
from rlhi.engine.scripted import ScriptedEngine
from rlhi.engine.store import Store
from rlhi.engine.stored import StoredEngine
from rlhi.errors import InputError
from rlhi.evaluate.config import EvaluateConfig
from rlhi.evaluate.judge import judge
from rlhi.evaluate.turns import Contest, HeldOutTurn
from rlhi.execute import Call, execute
from rlhi.questions import Method
from rlhi.records import Missing, Persona, Reason
from rlhi.reward.judge import Judge
from rlhi.reward.model import Unscored
from rlhi.reward.stage import JudgeConfig, score
from rlhi.rip import follow_ups
from rlhi.sample.stage import distinct
from tests.missing import LackingEngine
from tests.rows import answer, candidates, messages, pair, reasons, talk

LACKING: dict[str, Missing] = {"Rude.": "filtered", "Poison.": "unanswered"}
BOTH = {"rude": "filtered", "poison": "unanswered"}


def saying(text: str) -> LackingEngine:
    return LackingEngine(ScriptedEngine(lambda *_: text), LACKING)


@pytest.mark.parametrize("method", get_args(Method))
def test_turns_without_an_answer_are_dropped(method: Method) -> None:
    row = talk("c", "Hi.", "Hello.", "Rude.", "What?", "Poison.", "What?", "Thanks.")
    config = ClassifyConfig(method=method)
    turns, dropped, said = classify([row], saying("[[Positive feedback]]"), config)
    assert [turn.id for turn in turns] == ["c/0", "c/6"]
    assert reasons(dropped) == {"c/2": "filtered", "c/4": "unanswered"}
    assert [each.missing for each in said] == ["filtered", "unanswered", None]


def test_calibration_without_an_answer_is_refused_and_not_left_out() -> None:
    engine = LackingEngine(ScriptedEngine(lambda *_: "[[New]]"), {"N/A": "filtered"})
    with pytest.raises(
        InputError, match=r"calibrate=true: the empty question 'prior' is filtered; set calibrate=false"
    ):
        classify([talk("c", "Hi.", "Hello.", "Thanks.")], engine, ClassifyConfig(calibrate=True))
    with pytest.raises(InputError, match="calibrate=true"):
        traits.judge([Persona("ann", "- a", ())], engine, calibrate=True, max_users=9, seed=0)


def test_traits_without_an_answer_are_dropped() -> None:
    personas = [Persona("ann", "- short", ()), Persona("rude", "Rude.", ()), Persona("poison", "Poison.", ())]
    kept, dropped = traits.judge(personas, saying("[[None]]"), calibrate=False, max_users=9, seed=0)
    assert {trait.user_id for trait in kept} == {"ann"}
    assert reasons(dropped) == {f"{user}/{side}": BOTH[user] for user in BOTH for side in traits.DIMENSIONS}


@pytest.mark.parametrize("method", get_args(Method))
def test_pairs_whose_check_was_not_answered_leave_for_that_reason(method: Method) -> None:
    texts = {"rude": "Rude.", "poison": "Poison.", "fine": "Shorter."}
    pairs = [replace(pair(key), follow_up=text) for key, text in texts.items()]
    assert follow_ups.refused(follow_ups.check(pairs, saying("[[Fine]]"), method)) == BOTH


@pytest.mark.parametrize("lacking", ["THEIRS", "N/A"])
def test_verdict_is_null_without_an_answer_to_its_question_or_to_the_empty_one(lacking: str) -> None:
    turn = HeldOutTurn("c/0", "ann", "initial", messages("Name a fruit."), "- short", "A fruit is a fig.")
    contests = [Contest(turn, "persona-guided", "log", "OURS", "THEIRS")]
    engine = ScriptedEngine(lambda request, _: "[B]" if "N/A" in request.messages[0].content else "[A]")
    cases: list[tuple[dict[str, Missing], set[str | None]]] = [({}, {"A"}), ({lacking: "unanswered"}, {None})]
    for lacks, winners in cases:
        config = EvaluateConfig(axes=("usereval",), calibrate=lacking == "N/A")
        found = judge(contests, LackingEngine(engine, lacks), config)
        assert {verdict.winner for verdict in found} == winners
        assert {verdict.unread for verdict in found} == ({"unanswered"} if lacks else {None})


def test_answers_that_no_judge_graded_have_no_reward_and_their_row_leaves_for_that_reason() -> None:
    judged = Judge(saying("[[5]]"), JudgeConfig(samples=2), 0, knows_persona=True)
    rows = [candidates(key, answer("Fig."), answer(text)) for key, text in (("rude", "Rude."), ("poison", "Poison."))]
    kept, dropped, nulls = score(rows, judged)
    assert kept == []
    assert reasons(dropped) == BOTH
    assert nulls == {"rude/1": Unscored("filtered"), "poison/1": Unscored("unanswered")}


def test_reply_that_says_no_grade_tells_more_than_one_that_is_missing() -> None:
    class Half(LackingEngine):
        def stream(self, *given):  # type: ignore[no-untyped-def]
            for place, number, reply in super().stream(*given):
                yield place, number, reply if number else UNANSWERED

    judged = Judge(Half(ScriptedEngine(lambda *_: "Who can say?"), {}), JudgeConfig(samples=2), 0, knows_persona=True)
    assert judged.score([candidates("c", answer("Fig."))]) == [[Unscored("unreadable", "Who can say?")]]


@pytest.mark.parametrize(
    ("replies", "texts", "reason"),
    [
        (["a", "b", FILTERED], ["a", "b"], None),
        (["a", FILTERED, UNANSWERED], [], "filtered"),
        ([UNANSWERED] * 3, [], "unanswered"),
        (["a", "a", UNANSWERED], ["a"], "too_few_answers"),
        (["", "a", "b"], ["a", "b"], None),
    ],
)
def test_prompt_needs_two_answers_however_many_are_missing(
    replies: list[str | Reply], texts: list[str], reason: str | None
) -> None:
    given = [each if isinstance(each, Reply) else Reply(each, "stop", None) for each in replies]
    answers, why = distinct(given, keep_cut=True)
    assert ([each.text for each in answers], why) == (texts, reason)


def test_what_was_filtered_is_stored_and_what_was_not_answered_is_asked_again(tmp_path: Path) -> None:
    requests = [Request(text, messages(text)) for text in ("Hi.", "Rude.", "Poison.", "Poison.")]
    sampling = SamplingConfig()

    def ask(lacking: dict[str, Missing]) -> tuple[list[Reason | None], list[Scores], list[str]]:
        asked: list[str] = []
        fake = ScriptedEngine(lambda *_: "[A]", hear=lambda key, _: asked.append(key))
        engine = StoredEngine(LackingEngine(fake, lacking), Store(tmp_path / "replies.sqlite"))
        replies = [reply.lack for (reply,) in generate(engine, requests, sampling, 1, 0)]
        return replies, choose(engine, requests, ["[A]", "[B]"]), asked

    missing = [None, "filtered", "unanswered", "unanswered"]
    scores = [[0.0, -1.0], "filtered", "unanswered", "unanswered"]
    assert ask(LACKING)[:2] == (missing, scores)
    again = ask(LACKING)
    assert again[:2] == (missing, scores)
    assert set(again[2]) == {"Poison."}
    later = ask({})
    assert later[:2] == ([None, "filtered", None, None], [[0.0, -1.0], "filtered", [0.0, -1.0], [0.0, -1.0]])
    assert ask({})[2] == []


def test_output_that_lacks_replies_is_not_reused_by_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_STORE", str(tmp_path / "store"))
    made: list[str] = []

    def make(personas: Output[Persona], config: StageConfig) -> None:
        personas.write([], [], 0)
        tally.add("given_up", 0 if made else 2)
        made.append(personas.path.name)

    for name in ("a", "a", "b", "c"):
        execute(Call("made", make, {}, {}, "personas", Output(tmp_path / name, Persona), StageConfig()))
    assert made == ["a", "b"]

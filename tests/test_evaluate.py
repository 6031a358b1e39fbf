from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rlhi.artifacts import Input, Output
from rlhi.engine import Engine, Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.errors import InputError
from rlhi.evaluate.judge import Contest, HeldOutTurn, judge, read_verdict, scores_by_group, transcript
from rlhi.evaluate.stage import EvaluateConfig, answer, as_metrics, examples, held_out_turns, reward_scores, run
from rlhi.evaluate.winrates import WinRate
from rlhi.execute import Call, execute
from rlhi.records import Axis, Candidates, Conversation, Mode, Opponent, Pair, Persona, Verdict
from tests.rows import messages, personas, reasons, talk

CONFIG = EvaluateConfig()
TURN = HeldOutTurn("c/0", "ann", messages("Name a fruit."), "- short", "A fruit is a fig.")
OTHER = HeldOutTurn("d/2", "ben", messages("Hi.", "Hello.", "Name a nut."), "- long", "Hazel.")
AXES: tuple[Axis, ...] = ("personalization", "instruction-following", "usereval")


def contest(
    turn: HeldOutTurn = TURN,
    ours: str = "OURS",
    theirs: str = "THEIRS",
    mode: Mode = "persona-guided",
    opponent: Opponent = "log",
) -> Contest:
    return Contest(turn, mode, opponent, ours, theirs)


def held_out(name: str, *said: str, user: str = "ann") -> Conversation:
    return talk(name, *said, user=user, split="held-out")


def answering(*, trained: bool) -> Engine:
    name = "trained" if trained else "base"
    return ScriptedEngine(lambda request, _: f"{name} {request.key} {request.persona}", max_prompt_tokens=50)


def test_every_answered_turn_of_a_held_out_conversation_is_judged() -> None:
    rows = [
        held_out("h", "One.", "1", "Two.", "2", "Bye."),
        talk("r", "Hi.", "1", split="reference"),
        talk("t", "Hi.", "1"),
    ]
    turns, dropped = held_out_turns(rows, personas("ann"), CONFIG)
    assert turns == [
        HeldOutTurn("h/0", "ann", messages("One."), "- short", "1"),
        HeldOutTurn("h/2", "ann", messages("One.", "1", "Two."), "- short", "2"),
    ]
    assert reasons(dropped) == {"h/4": "no_logged_answer"}


def test_user_without_a_reference_persona_is_dropped() -> None:
    rows = [held_out("h", "Hi.", "1"), held_out("i", "Hi.", "1", user="ben")]
    turns, dropped = held_out_turns(rows, personas("ann"), CONFIG)
    assert [turn.id for turn in turns] == ["h/0"]
    assert reasons(dropped) == {"i/0": "no_persona"}


def test_caps_take_users_and_turns_by_seed_with_their_reasons() -> None:
    rows = [held_out(f"u{i}", *["Hi.", "1"] * 3, user=f"u{i}") for i in range(10)]
    known = personas(*(f"u{i}" for i in range(10)))

    def taken(config: EvaluateConfig) -> tuple[list[str], Counter[str]]:
        turns, dropped = held_out_turns(rows, known, config)
        assert len(turns) + len(dropped) == 30
        assert {turn.id for turn in held_out_turns(rows[::-1], known, config)[0]} == {turn.id for turn in turns}
        return [turn.id for turn in turns], Counter(reasons(dropped).values())

    config = replace(CONFIG, max_users=4, max_turns=5)
    found, why = taken(config)
    assert (len(found), why) == (5, {"user_cap": 18, "turn_cap": 7})
    assert found == sorted(found)
    assert taken(config)[0] == found
    assert taken(replace(config, seed=1))[0] != found


def test_models_answer_every_turn_in_every_mode_against_every_opponent() -> None:
    contests, too_long = answer([TURN, OTHER], answering, replace(CONFIG, opponents=("log", "base")))
    assert too_long == []
    assert [(each.opponent, each.mode, each.ours, each.theirs) for each in contests if each.turn == TURN] == [
        ("log", "context-only", "trained c/0 None", TURN.logged),
        ("log", "persona-guided", "trained c/0 - short", TURN.logged),
        ("base", "context-only", "trained c/0 None", "base c/0 None"),
        ("base", "persona-guided", "trained c/0 - short", "base c/0 - short"),
    ]
    assert len(contests) == 8


def test_base_model_is_not_asked_where_it_is_no_opponent() -> None:
    def only_trained(*, trained: bool) -> Engine:
        if not trained:
            raise AssertionError("nobody asked for the base model")
        return answering(trained=True)

    assert len(answer([TURN], only_trained, CONFIG)[0]) == 2


def test_turn_whose_prompt_is_too_long_is_dropped() -> None:
    long = replace(OTHER, context=messages("word " * 51))
    contests, dropped = answer([TURN, long], answering, CONFIG)
    assert {each.turn.id for each in contests} == {"c/0"}
    assert reasons(dropped) == {"d/2": "prompt_too_long"}


def prefers(text: str) -> ScriptedEngine:
    """A judge that names the answer that holds ``text``."""

    def reply(request: Request, _: int) -> str:
        before = request.messages[-1].content.split("[The End of Assistant A's Answer]")[0]
        return "[A]" if text in before.split("[The Start of Assistant A's Answer]")[1] else "[B]"

    return ScriptedEngine(reply)


def judged(
    contests: Sequence[Contest], axes: Sequence[Axis], engine: Engine, *, calibrate: bool = False
) -> list[Verdict]:
    return judge(contests, axes, engine, calibrate=calibrate)


def test_judge_sees_both_orders_and_follows_the_answer() -> None:
    verdicts = judged([contest()], ["usereval"], prefers("OURS"))
    assert verdicts == [
        Verdict("c/0", "ann", "log", "persona-guided", "usereval", "model-first", "OURS", "THEIRS", "A"),
        Verdict("c/0", "ann", "log", "persona-guided", "usereval", "opponent-first", "THEIRS", "OURS", "B"),
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
    assert [read_verdict(scores) for scores in ([-1.0, -1.0], None, [-1, -2], [-2, -1])] == [None, None, "A", "B"]


class Leaning(ScriptedEngine):
    """A judge that likes OURS a little and [A] a lot, whatever it reads."""

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[list[float]]:
        liked = prefers("OURS").choose(requests, choices)
        names_ours = ["OURS" in request.messages[-1].content for request in requests]
        return [[a + 5, b] if ours else [4.5, 0.0] for ours, (a, b) in zip(names_ours, liked, strict=True)]


def test_calibrated_judge_is_freed_from_its_love_of_a_letter() -> None:
    winners = [
        [each.winner for each in judged([contest()], ["usereval"], Leaning(lambda *_: ""), calibrate=calibrate)]
        for calibrate in (False, True)
    ]
    assert winners == [["A", "A"], ["A", "B"]]


def test_transcript_names_who_spoke() -> None:
    assert transcript(messages("system:Be kind.", "Hi.", "Yes?")) == "System: Be kind.\n\nUser: Hi.\n\nAssistant: Yes?"


class Lengths:
    """Rewards length where there is a persona; cannot score an empty answer."""

    note = "length"

    def score(self, rows: Sequence[Candidates]) -> list[list[float | None]]:
        return [[float(len(each.text)) if row.persona and each.text else None for each in row.answers] for row in rows]


def test_rewards_compare_both_answers_with_the_persona_in_every_mode() -> None:
    contests = [contest(ours="abc", theirs="a", mode=mode) for mode in CONFIG.modes]
    contests += [contest(OTHER, ours="", theirs="a"), contest(OTHER, ours="b", theirs="b", opponent="base")]
    scores = reward_scores(contests, Lengths())
    assert scores == [(3.0, 1.0), (3.0, 1.0), (None, 1.0), (1.0, 1.0)]
    assert scores_by_group(contests, scores) == {
        ("log", "context-only"): [("c/0", "ann", 3.0, 1.0)],
        ("log", "persona-guided"): [("c/0", "ann", 3.0, 1.0)],
        ("base", "persona-guided"): [("d/2", "ben", 1.0, 1.0)],
    }


def test_metrics_are_named_by_opponent_metric_and_mode_and_hold_no_null() -> None:
    rate = WinRate("log", "persona-guided", "usereval", 0.5, None, None, 2, 1, 3, 0.25, 0.5)
    assert as_metrics([rate, replace(rate, metric="reward", rate=None, disagreement=None, unread=0)]) == {
        "win_rate/log/usereval/persona-guided": 0.5,
        "win_rate/log/usereval/persona-guided/disagreement": 0.25,
        "win_rate/log/usereval/persona-guided/unread": 3.0,
        "win_rate/log/reward/persona-guided/unread": 0.0,
    }


def test_examples_show_all_answers_of_a_turn_and_what_the_judge_said() -> None:
    contests = [contest(mode="context-only"), contest(), contest(theirs="BASE", opponent="base")]
    (found,) = examples(contests, judged(contests[:2], ["usereval"], prefers("THEIRS")))
    assert found.answers == {"trained": "OURS", "log": "THEIRS", "base": "BASE"}
    assert found.outcome == "model-first, against log: log wins; opponent-first, against log: log wins"


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("train", r"no conversation is held out; more users are needed, or a larger ingest\.eval_share"),
        ("held-out", r"none of 1 held-out turns can be judged \(no_persona 1\)"),
    ],
)
def test_nothing_to_judge_is_an_error_with_a_way_out(tmp_path: Path, split: str, said: str) -> None:
    row = replace(talk("c", "Hi.", "Yes?"), split="held-out" if split == "held-out" else "train")

    def write(a: Output[Conversation], config: object) -> None:
        a.write([row], [], 1)

    def write_none(a: Output[Persona], config: object) -> None:
        a.write([], [], 0)

    execute(Call("ingest", write, {}, {}, "a", Output(tmp_path / "conversations", Conversation), CONFIG))
    for name, record in (("personas", Persona), ("model", Pair)):
        execute(Call(name, write_none, {}, {}, "a", Output(tmp_path / name, record), CONFIG))
    with (
        Output(tmp_path / "verdicts", Verdict) as output,
        pytest.raises(InputError, match=said),
    ):
        run(
            Input(tmp_path / "conversations", Conversation),
            Input(tmp_path / "personas", Persona),
            Input(tmp_path / "model", Pair),
            output,
            CONFIG,
        )

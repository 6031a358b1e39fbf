from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhi.artifacts import Input, Output
from rlhi.engine import Engine, Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.errors import InputError
from rlhi.evaluate.answers import Player, answer, with_rewards
from rlhi.evaluate.config import EvaluateConfig
from rlhi.evaluate.examples import examples
from rlhi.evaluate.results import Results, as_metrics
from rlhi.evaluate.stage import run
from rlhi.evaluate.turns import HeldOutTurn, held_out_turns, with_other_personas
from rlhi.evaluate.winrates import WinRate
from rlhi.execute import Call, execute
from rlhi.records import Candidates, Conversation, Mode, Pair, Persona, Verdict
from rlhi.reward.model import Score, Unscored
from tests.contests import AXES, CONFIG, OTHER, TURN, contest, judged, prefers
from tests.rewards import FakeReward
from tests.rows import messages, personas, reasons, talk

RATE = WinRate("log", "persona-guided", "usereval", 0.5, None, None, 2, 1, 3, 0.25, 0.5)


def held_out(name: str, *said: str, user: str = "ann") -> Conversation:
    return talk(name, *said, user=user, split="held-out")


def answering(player: Player) -> Engine:
    return ScriptedEngine(lambda request, _: f"{player} {request.key} {request.persona}", max_prompt_tokens=50)


def test_every_answered_turn_of_a_held_out_conversation_is_judged() -> None:
    rows = [
        held_out("h", "One.", "1", "Two.", "2", "Bye."),
        talk("r", "Hi.", "1", split="reference"),
        talk("t", "Hi.", "1"),
    ]
    turns, dropped = held_out_turns(rows, personas("ann"), CONFIG)
    assert turns == [
        HeldOutTurn("h/0", "ann", "initial", messages("One."), "- short", "1"),
        HeldOutTurn("h/2", "ann", "follow-up", messages("One.", "1", "Two."), "- short", "2"),
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
    def only_trained(player: Player) -> Engine:
        if player != "trained":
            raise AssertionError(f"nobody asked for the {player} model")
        return answering(player)

    assert len(answer([TURN], only_trained, CONFIG)[0]) == 2


def test_turn_whose_prompt_is_too_long_is_dropped() -> None:
    long = replace(OTHER, context=messages("word " * 51))
    contests, dropped = answer([TURN, long], answering, CONFIG)
    assert {each.turn.id for each in contests} == {"c/0"}
    assert reasons(dropped) == {"d/2": "prompt_too_long"}


def test_another_users_persona_is_dealt_by_seed_and_never_ones_own() -> None:
    texts = {"ann": "- a", "ben": "- b", "cal": "- a", "dot": "- d"}
    turns = [
        replace(TURN, id=f"{user}/{i}", user_id=user, persona=text) for user, text in texts.items() for i in (0, 2)
    ]
    dealt = set()
    for seed in range(20):
        found = with_other_personas(turns, seed)
        assert all(turn.other_persona in texts.values() and turn.other_persona != turn.persona for turn in found)
        by_user = {turn.user_id: turn.other_persona for turn in found}
        assert [turn.other_persona for turn in found] == [by_user[turn.user_id] for turn in found]
        assert with_other_personas(turns[::-1], seed) == found[::-1]
        dealt.add(tuple(sorted(by_user.items())))
    assert len(dealt) > 1


def test_shuffled_mode_needs_two_users_with_different_personas() -> None:
    with pytest.raises(InputError, match="need two users with different personas"):
        with_other_personas([TURN, replace(TURN, user_id="ben")], 0)


def test_shuffled_modes_change_what_the_model_or_what_the_judge_reads() -> None:
    turn = replace(TURN, other_persona="- long")
    modes: tuple[Mode, ...] = ("persona-guided", "shuffled-persona", "shuffled-judge")
    contests, _ = answer([turn], answering, replace(CONFIG, modes=modes))
    assert [each.ours for each in contests] == [f"trained c/0 {text}" for text in ("- short", "- long", "- short")]
    read: dict[str, set[str]] = {mode: set() for mode in modes}
    for each in contests:

        def reply(request: Request, _: int, mode: str = each.mode) -> str:
            shown = request.messages[-1].content.partition("[The End of User Persona]")[0].split("\n")
            read[mode] |= {line for line in shown if line in ("- short", "- long")}
            return "[A]"

        judged([each], AXES, ScriptedEngine(reply))
    assert read == {"persona-guided": {"- short"}, "shuffled-persona": {"- short"}, "shuffled-judge": {"- long"}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"calibrate": True, "method": "generate"}, "set calibrate=false"),
        ({"over_personalization": True, "modes": ("persona-guided",)}, "add these to modes and axes"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(CONFIG, **changes).check()


def length(row: Candidates, text: str) -> Score:
    """Rewards length where there is a persona; cannot score an empty answer."""
    return float(len(text)) if row.persona and text else Unscored("empty_answer")


def test_rewards_compare_both_answers_with_the_persona_in_every_mode() -> None:
    contests = [contest(ours="abc", theirs="a", mode=mode) for mode in CONFIG.modes]
    contests += [contest(OTHER, ours="", theirs="a"), contest(OTHER, ours="b", theirs="b", opponent="base")]
    found = with_rewards(contests, FakeReward(length))
    assert [(each.our_reward, each.their_reward) for each in found] == [(3.0, 1.0), (3.0, 1.0), (None, 1.0), (1.0, 1.0)]
    assert [replace(each, our_reward=None, their_reward=None) for each in found] == contests


def test_metrics_are_named_by_opponent_metric_and_mode_and_hold_no_null() -> None:
    rates = [RATE, replace(RATE, metric="reward", rate=None, disagreement=None), replace(RATE, part="tone/casual")]
    found = as_metrics(Results([], [], [], rates, [], []))
    assert {name: n for name, n in found.items() if not name.endswith(("/asked", "/half_read", "/first_position"))} == {
        "win_rate/log/usereval/persona-guided": 0.5,
        "win_rate/log/usereval/persona-guided/turns": 2.0,
        "win_rate/log/usereval/persona-guided/disagreement": 0.25,
        "win_rate/log/usereval/persona-guided/unread": 3.0,
        "win_rate/log/usereval/persona-guided/tone/casual": 0.5,
        "win_rate/log/usereval/persona-guided/tone/casual/turns": 2.0,
        "win_rate/log/reward/persona-guided/turns": 2.0,
        "win_rate/log/reward/persona-guided/unread": 3.0,
    }


def test_examples_show_all_answers_of_a_turn_and_what_the_judge_said() -> None:
    contests = [contest(mode="context-only"), contest(), contest(theirs="BASE", opponent="base")]
    (found,) = examples(contests, judged(contests[:2], ["usereval"], prefers("THEIRS")), RATE)
    assert found.answers == {"trained": "OURS", "log": "THEIRS", "base": "BASE"}
    assert found.kind == "loss"
    assert [(one.question, one.outcome) for one in found.said] == [
        ("usereval, against log, trained model shown first", "log wins"),
        ("usereval, against log, trained model shown second", "log wins"),
    ]


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
            output,
            CONFIG,
            Input(tmp_path / "model", Pair),
        )

"""WildChat UserEval as a container runs it: a tiny model answers, a judge behind a server writes its verdicts."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest
from rlhi.artifacts import user_rows
from rlhi.cli import main
from rlhi.evaluate.results import Results, load
from rlhi.records import Conversation, Persona, Trait
from tests.chat_server import ChatServer
from tests.rows import talk
from tests.stage_rows import write_rows

USERS = [f"user{i}" for i in range(6)]
TURNS = 2 * 2 * len(USERS)
QUESTIONS = TURNS * 3 * 2 * 2  # on three axes, in two modes, in two orders


def verdict(body: dict[str, Any], _: int = 0) -> str:
    """Reasons that name both letters, and then one of them: the same for the same question."""
    letter = random.Random(body["messages"][0]["content"]).choice("AB")
    return f"<think>Is it [A]? Or [B]?</think> Both have merits, [A] and [B]. My verdict: **[{letter}]**"


def at_random(body: dict[str, Any]) -> float:
    return random.Random(f"fault {body['messages'][0]['content']}").random()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("inputs")
    talks = [
        talk(f"{user}-{i}", f"{user} asks {i}.", "Logged.", "More.", "Logged again.", user=user, split="held-out")
        for user in USERS
        for i in range(2)
    ]
    write_rows(place / "conversations", Conversation, talks)
    write_rows(place / "personas", Persona, [Persona(user, f"- {user} likes it short", ()) for user in USERS])
    write_rows(place / "traits", Trait, [Trait(user, "tone", "first") for user in USERS[:4]])
    return place


class Evaluation:
    """Calls of the stage, each with an output of its own."""

    def __init__(self, inputs: Path, place: Path, model: Path) -> None:
        self.inputs, self.place, self.model = inputs, place, {"id": str(model)}

    def call(self, server: ChatServer, out: str, *flags: str, **config: Any) -> int:
        judge = {"kind": "openai", "model": {"id": "judge"}, "server": {"url": server.url, "logprobs": False}}
        usual = {"model": self.model, "reward": {"model": self.model}, "sampling": {"max_tokens": 6}, "resamples": 200}
        values = {**usual, "judge": judge, "method": "generate", **config}
        argv = [f"--{name}={self.inputs / name}" for name in ("conversations", "personas")]
        with pytest.MonkeyPatch.context() as shell:
            shell.setenv("RLHI_REPLIES", str(self.place / "replies.sqlite"))
            return main(["evaluate", *argv, f"--verdicts={self.place / out}", "--config", json.dumps(values), *flags])

    def results(self, server: ChatServer, out: str, *flags: str, **config: Any) -> Results:
        assert self.call(server, out, *flags, **config) == 0
        return load(self.place / out)


@pytest.fixture
def evaluation(inputs: Path, tmp_path: Path, tiny_model: Path) -> Evaluation:
    return Evaluation(inputs, tmp_path, tiny_model)


@pytest.fixture(scope="module")
def clean(inputs: Path, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Results:
    """What a judge without faults says, asked once."""
    evaluation = Evaluation(inputs, tmp_path_factory.mktemp("clean"), tiny_model)
    with ChatServer(verdict) as server:
        first = evaluation.results(server, "first")
        assert len(server.bodies) == QUESTIONS
        second = evaluation.results(server, "second", "--resamples=201")
        assert len(server.bodies) == QUESTIONS, "the second run asked for what was stored"
    assert second.verdicts == first.verdicts
    return first


def test_every_turn_is_judged_on_every_axis_in_every_mode_and_order_once(clean: Results) -> None:
    asked = Counter((each.turn_id, each.axis, each.mode, each.order) for each in clean.verdicts)
    assert (len(asked), max(asked.values())) == (QUESTIONS, 1)


def test_run_that_a_cap_ended_goes_on_where_it_was(evaluation: Evaluation) -> None:
    with ChatServer(verdict) as server:
        capped = ("--judge.server.max_tokens_total=3000", "--judge_sampling.max_tokens=100")
        assert evaluation.call(server, "out", *capped) == 2
        assert 0 < len(server.bodies) < QUESTIONS
        evaluation.results(server, "out", "--judge_sampling.max_tokens=100")
        assert len(server.bodies) == QUESTIONS
        assert max(Counter(body["messages"][0]["content"] for body in server.bodies).values()) == 1


def test_written_verdicts_are_read_and_kept(clean: Results) -> None:
    assert {each.winner for each in clean.verdicts} == {"A", "B"}
    assert all(f"**[{each.winner}]**" in each.said for each in clean.verdicts)
    assert {each.unread for each in clean.verdicts} == {None}


def test_failed_and_unreadable_answers_change_nothing_silently(evaluation: Evaluation, clean: Results) -> None:
    def sometimes(body: dict[str, Any], k: int) -> str | dict[str, Any]:
        drawn = at_random(body)
        if drawn < 0.02:
            return {"message": {"content": ""}, "finish_reason": "content_filter"}
        if drawn < 0.04:
            return {"message": {"content": f"{verdict(body)} and then"}, "finish_reason": "length"}
        return "They are equally good." if drawn < 0.06 else verdict(body)

    with ChatServer(sometimes) as bad:
        faulty = evaluation.results(bad, "faulty")
    lost = [each for each in faulty.verdicts if each.winner is None]
    assert Counter(each.unread for each in lost).keys() == {"filtered", "unreadable"}
    assert 0.03 < len(lost) / QUESTIONS < 0.1
    pairs = list(zip(clean.verdicts, faulty.verdicts, strict=True))
    assert all(ours.winner == theirs.winner for ours, theirs in pairs if theirs.winner is not None)
    metrics = manifest.load(evaluation.place / "faulty").metrics
    told = {name: n for name, n in metrics.items() if name.startswith("win_rate/") and name.endswith("/unread")}
    assert sum(told.values()) == len(lost)
    assert any(told.values())
    for before, after in zip(clean.overall, faulty.overall, strict=True):
        assert before.asked == after.asked == TURNS
        assert after.rate is not None
        assert before.rate is not None
        assert after.worst is not None
        assert after.best is not None
        assert after.worst <= after.rate <= after.best
        assert after.worst <= before.rate <= after.best
        assert (after.worst == after.best) == (after.unread == 0)
        if after.unread == 0:
            assert after == before


def test_question_that_is_never_answered_is_asked_again_by_the_next_run(evaluation: Evaluation) -> None:
    patience = ("--judge.server.deadline=3", "--judge.server.concurrency=4")
    with ChatServer(verdict, lambda number: "500" if poisoned(server.bodies[-1]) else None) as server:
        first = evaluation.results(server, "first", *patience, axes=["usereval"])
    lost = [each for each in first.verdicts if each.winner is None]
    assert {(each.turn_id, each.order, each.unread) for each in lost} == {("user3-1/2", "model-first", "unanswered")}
    with ChatServer(verdict) as server:
        second = evaluation.results(server, "second", "--resamples=201", axes=["usereval"])
        assert len(server.bodies) == len(lost)
    assert all(each.winner is not None for each in second.verdicts)


def poisoned(body: dict[str, Any]) -> bool:
    """The questions of one turn that show the model's answer first."""
    history, answers = body["messages"][0]["content"].split("[The Start of Assistant A's Answer]\n")
    return "user3 asks 1." in history and "More." in history and not answers.startswith("Logged again.")


def test_controls_are_judged_and_compared(evaluation: Evaluation) -> None:
    modes = ["context-only", "persona-guided", "shuffled-persona", "shuffled-judge"]
    with ChatServer(lambda body, k: "[[No]]" if "has a bearing" in str(body) else verdict(body)) as server:
        found = evaluation.results(
            server, "out", f"--traits={evaluation.inputs / 'traits'}", modes=modes, over_personalization=True
        )
    assert all(turn.other_persona not in (None, turn.persona) for turn in found.turns)
    assert {turn.persona_matters for turn in found.turns} == {False}
    assert {(each.left, each.right, each.metric) for each in found.differences} >= {
        ("persona-guided", "shuffled-persona", "personalization"),
        ("persona-guided", "shuffled-judge", "usereval"),
        ("shuffled-persona", "context-only", "instruction-following"),
        ("persona-guided", "context-only", "reward"),
    }
    (lost,) = found.over_personalization
    assert (lost.turns, lost.users, lost.left) == (TURNS, len(USERS), "context-only")
    given = {(each.turn.id, each.mode): each.ours for each in found.contests}
    assert all(given[turn.id, "shuffled-judge"] == given[turn.id, "persona-guided"] for turn in found.turns)
    casual = [rate for rate in found.win_rates if rate.part == "tone/casual" and rate.metric == "usereval"]
    assert [(rate.mode, rate.users, rate.asked) for rate in casual] == [(mode, 4, 16) for mode in modes]
    assert "win_rate/log/usereval/persona-guided/tone/casual" in manifest.load(evaluation.place / "out").metrics


def test_table_five_parts_the_turns(clean: Results) -> None:
    for rate in clean.overall:
        parts = [each for each in clean.win_rates if _same(each, rate) and each.part in ("initial", "follow-up")]
        assert [each.turns for each in parts] == [TURNS / 2, TURNS / 2]
        assert rate.rate == pytest.approx(sum(each.rate or 0 for each in parts) / 2)


def _same(one: Any, other: Any) -> bool:
    return bool((one.opponent, one.mode, one.metric) == (other.opponent, other.mode, other.metric))


def test_champion_answers_the_same_turns(evaluation: Evaluation, tmp_path: Path) -> None:
    from tests.conftest import write_model

    other = write_model(tmp_path / "other", 16)
    with ChatServer(verdict) as server:
        found = evaluation.results(
            server, "out", opponents=["champion"], champion_model={"id": str(other)}, axes=["usereval"]
        )
        assert len(server.bodies) == QUESTIONS / 3
    assert {each.opponent for each in found.contests} == {"champion"}
    assert sum(each.ours != each.theirs for each in found.contests) > TURNS
    assert len(found.contests) == 2 * TURNS


def test_models_are_compared_on_what_each_won_of_the_log(evaluation: Evaluation, tmp_path: Path) -> None:
    from tests.conftest import write_model

    other = {"id": str(write_model(tmp_path / "other", 16))}
    fewer: dict[str, Any] = {"axes": ["usereval"], "modes": ["persona-guided"]}
    with ChatServer(verdict) as server:
        earlier = evaluation.results(server, "earlier", model=other, max_turns=20, **fewer)
        found = evaluation.results(server, "later", f"--earlier={tmp_path / 'earlier'}", **fewer)
    judged, scored = found.differences
    assert (judged.metric, judged.mode, judged.left, judged.right) == (
        "usereval",
        "persona-guided",
        "evaluated",
        "earlier",
    )
    assert (judged.turns, scored.metric, scored.turns) == (20, "reward", 20)
    before = {each.turn_id for each in earlier.verdicts}
    ours = [each for each in found.verdicts if each.turn_id in before]
    won = [sum((v.winner == "A") == (v.order == "model-first") for v in own) / 40 for own in (ours, earlier.verdicts)]
    assert judged.difference == pytest.approx(won[0] - won[1])
    metrics = manifest.load(tmp_path / "later").metrics
    assert metrics["difference/log/usereval/persona-guided/evaluated/earlier"] == judged.difference


def test_model_that_was_judged_otherwise_is_not_compared(
    evaluation: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer: dict[str, Any] = {"axes": ["usereval"], "modes": ["persona-guided"], "max_turns": 2}
    with ChatServer(verdict) as server:
        evaluation.results(server, "earlier", orders="one", **fewer)
        assert evaluation.call(server, "later", f"--earlier={tmp_path / 'earlier'}", **fewer) == 2
    assert "was judged with evaluate.orders='one', and this with 'both'" in capsys.readouterr().err


def test_champion_whom_nobody_names_is_refused(evaluation: Evaluation, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer(verdict) as server:
        assert evaluation.call(server, "out", opponents=["champion"]) == 2
    assert "who is the champion? Give --champion" in capsys.readouterr().err


def test_output_knows_whose_it_is(evaluation: Evaluation) -> None:
    with ChatServer(verdict) as server:
        evaluation.results(server, "out", axes=[], modes=["context-only"])
        assert server.bodies == []
    assert user_rows(evaluation.place / "out").keys() == set(USERS)

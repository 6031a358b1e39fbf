from pathlib import Path

import pytest

from rlhi.artifacts import Input
from rlhi.cli import main
from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.records import Candidates
from rlhi.reward import probe
from rlhi.reward.judge import Judge, read_grade
from rlhi.reward.model import Unscored
from rlhi.reward.stage import JudgeConfig, RewardConfig
from tests.chat_server import ChatServer
from tests.rows import answer, candidates, messages
from tests.stage_rows import write_rows


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("It is right. [[7]]", 7.0),
        ("[[3]] at first, but then [[8.5]]", 8.5),
        ("[[10/10]]", 10.0),
        ("[[ 0 ]]", 0.0),
        ("[[11]]", None),
        ("[[-2]]", None),
        ("7", None),
        ("Seven out of ten.", None),
        ("", None),
    ],
)
def test_grade_is_read_or_null(text: str, grade: float | None) -> None:
    assert read_grade(text) == grade


ROW = candidates("c", answer("Fig."), answer("A fig is a fruit."), answer("Shrug."))
CONFIG = JudgeConfig(samples=4)


def grades(request: Request, sample: int) -> str:
    """5 for short answers, 8 or 9 for longer ones; nothing for what it does not know."""
    asked = request.messages[-1].content
    if "Shrug." in asked:
        return "I would rather not say."
    if sample == 3:
        return "no grade"
    return f"So so. [[{8 + sample % 2 if 'A fig is a fruit.' in asked else 5}]]"


def test_reward_is_the_mean_of_the_grades_that_can_be_read() -> None:
    (scores,) = Judge(ScriptedEngine(grades), CONFIG, 0, knows_persona=True).score([ROW])
    assert scores == [5.0, pytest.approx((8 + 9 + 8) / 3), Unscored("unreadable", "I would rather not say.")]


def test_judge_sees_the_persona_only_if_it_is_to() -> None:
    asked: list[str] = []

    def hear(request: Request, sample: int) -> str:
        asked.append(request.messages[-1].content)
        return "[[5]]"

    for knows in (True, False):
        Judge(ScriptedEngine(hear), JudgeConfig(samples=1), 0, knows_persona=knows).score([ROW])
    assert all("[The Start of User Persona]\n- short\n" in text for text in asked[:3])
    assert not any("persona" in text.lower() for text in asked[3:])


def test_judge_reads_less_of_the_past_where_the_prompt_is_too_long() -> None:
    asked: list[str] = []

    def hear(request: Request, sample: int) -> str:
        asked.append(request.messages[-1].content)
        return "[[5]]"

    past = messages("Tell me of figs. " * 50, "Figs are sweet. " * 50)
    row = Candidates("c", "ann", (*past, *ROW.context), "- short", None, (answer("Fig."), answer("Date. " * 500)))
    judge = Judge(ScriptedEngine(hear, max_prompt_tokens=300), JudgeConfig(samples=1), 0, knows_persona=True)
    assert judge.score([row]) == [[5.0, Unscored("too_long")]]
    assert "Figs are sweet" not in asked[0]
    assert "Name a fruit." in asked[0]


def test_grades_are_asked_for_by_user_and_those_of_the_probe_by_everyone() -> None:
    asked: list[str | None] = []

    def hear(request: Request, sample: int) -> str:
        asked.append(request.user_id)
        return "[[5]]"

    Judge(ScriptedEngine(hear), JudgeConfig(samples=1), 0, knows_persona=True).score([ROW, probe.rows()[0]])
    assert asked == ["ann"] * 3 + [None] * 2
    assert RewardConfig(kind="judge").asks_models
    assert not RewardConfig().asks_models


def test_stage_with_a_judge_on_a_server_keeps_what_could_not_be_read(tmp_path: Path) -> None:
    good = [good for _, good, _ in probe.PAIRS]

    def says(body: dict[str, object], sample: int) -> str:
        asked = str(body["messages"])
        if "Shrug." in asked:
            return "I would rather not say."
        return "[[9]]" if any(text.replace("\n", "\\n") in asked or text in asked for text in good) else "[[2]]"

    write_rows(tmp_path / "sampled", Candidates, [ROW])
    argv = [
        "reward",
        "--candidates",
        str(tmp_path / "sampled"),
        "--scored",
        str(tmp_path / "scored"),
        "--kind",
        "judge",
    ]
    with ChatServer(says) as server:
        argv += ["--engine.kind", "openai", "--engine.model.id", "judge", "--engine.server.url", server.url]
        assert main([*argv, "--judge.samples", "2"]) == 0
    scored = Input(tmp_path / "scored", Candidates)
    assert [each.reward for each in scored.read()[0].answers] == [2.0, 2.0, None]
    assert scored.manifest.notes["reward_scale"] == "judge, 0 to 10"
    assert scored.manifest.metrics["reward/null/unreadable"] == 1
    assert '"id": "c/2", "reply": "I would rather not say."' in (tmp_path / "scored" / "unread.jsonl").read_text()

"""Contests for tests, and a judge that names the answer that holds a text."""

from collections.abc import Sequence
from dataclasses import replace

from rlhi.engine import Engine, Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.evaluate.config import EvaluateConfig
from rlhi.evaluate.judge import judge
from rlhi.evaluate.turns import Contest, HeldOutTurn
from rlhi.records import Axis, Mode, Opponent, Verdict
from tests.rows import messages

CONFIG = EvaluateConfig()
TURN = HeldOutTurn("c/0", "ann", "initial", messages("Name a fruit."), "- short", "A fruit is a fig.")
OTHER = HeldOutTurn("d/2", "ben", "follow-up", messages("Hi.", "Hello.", "Name a nut."), "- long", "Hazel.")
AXES: tuple[Axis, ...] = ("personalization", "instruction-following", "usereval")


def contest(
    turn: HeldOutTurn = TURN,
    ours: str = "OURS",
    theirs: str = "THEIRS",
    mode: Mode = "persona-guided",
    opponent: Opponent = "log",
) -> Contest:
    return Contest(turn, mode, opponent, ours, theirs)


def prefers(text: str) -> ScriptedEngine:
    """A judge that names the answer that holds ``text``."""

    def reply(request: Request, _: int) -> str:
        before = request.messages[-1].content.split("[The End of Assistant A's Answer]")[0]
        return "[A]" if text in before.split("[The Start of Assistant A's Answer]")[1] else "[B]"

    return ScriptedEngine(reply)


def judged(
    contests: Sequence[Contest], axes: Sequence[Axis], engine: Engine, *, calibrate: bool = False
) -> list[Verdict]:
    return judge(contests, engine, replace(CONFIG, axes=tuple(axes), calibrate=calibrate))

"""Evaluations for tests: the stage's own functions, with models and a judge that are scripted."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rlhi.artifacts import Output
from rlhi.engine import Engine, Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.evaluate.answers import Player, answer, with_rewards
from rlhi.evaluate.config import EvaluateConfig
from rlhi.evaluate.judge import judge
from rlhi.evaluate.results import Results, as_metrics, save
from rlhi.evaluate.stage import figures
from rlhi.evaluate.turns import held_out_turns, with_other_personas
from rlhi.execute import Call, execute
from rlhi.personas import Personas
from rlhi.records import Candidates, Conversation, Verdict
from rlhi.reward.model import Score
from tests.rewards import FakeReward
from tests.rows import persona, talk

CONFIG = EvaluateConfig(resamples=200)


def held_out(users: int = 4, text: str = "Name a fruit") -> list[Conversation]:
    """Two conversations of each user, one of them with a follow-up: three turns each."""
    return [
        talk(f"{user}{place}", *said, user=user, split="held-out")
        for user in (f"user-{number}" for number in range(users))
        for place, said in enumerate([(f"{text} for {user}?", "LOG fig."), ("Hi.", "LOG hello.", "Shorter!", "LOG Hi")])
    ]


def likes(*liked: str, reads: bool = True) -> ScriptedEngine:
    """A judge that names the answer with the most of ``liked`` in it, and A where neither has more.

    With ``reads`` false no verdict can be read.
    """

    def reply(request: Request, _: int) -> str:
        shown = request.messages[-1].content.split("[The Start of Assistant A's Answer]")[1]
        first, second = shown.split("[The Start of Assistant B's Answer]")
        return "[B]" if _held(second, liked) > _held(first, liked) else "[A]"

    return ScriptedEngine(reply if reads else lambda *_: "Both are fine.")


def evaluated(
    judged_by: Engine, config: EvaluateConfig = CONFIG, trained: str = "OURS", rows: Sequence[Conversation] = ()
) -> Results:
    """An evaluation of a model whose every answer begins with ``trained``."""
    conversations = list(rows) or held_out()
    users = dict.fromkeys(row.user_id for row in conversations)
    known = Personas(persona(user, f"- likes it short, as {user} does") for user in users)
    turns, _ = held_out_turns(conversations, known, config)
    turns = with_other_personas(turns, config.seed) if "shuffled-persona" in config.modes else turns

    def open_player(player: Player) -> Engine:
        word = trained if player == "trained" else player.upper()
        return ScriptedEngine(lambda request, _: f"{word} for {request.persona or 'nobody'}: {request.key}")

    contests, _ = answer(turns, open_player, config)
    contests = with_rewards(contests, FakeReward(_length))
    return figures(turns, contests, judge(contests, judged_by, config), config)


def written(folder: Path, results: Results, config: EvaluateConfig = CONFIG) -> Path:
    """The results as evaluate writes them."""

    def make(out: Output[Verdict], config: EvaluateConfig) -> None:
        out.write(results.verdicts, [], len(results.turns), count=len(results.turns))
        out.measure(as_metrics(results))
        save(results, out)

    execute(Call("evaluate", make, {}, {}, "out", Output(folder, Verdict), config))
    return folder


def without(results: Results, turn_id: str) -> Results:
    """The same verdicts but those on one turn, of which none could be read."""
    verdicts = [replace(each, winner=None) if each.turn_id == turn_id else each for each in results.verdicts]
    return figures(results.turns, results.contests, verdicts, CONFIG)


def _length(row: Candidates, text: str) -> Score:
    return float(len(text))


def _held(text: str, liked: Sequence[str]) -> int:
    return sum(text.count(word) for word in liked)

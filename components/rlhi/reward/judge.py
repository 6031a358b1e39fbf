"""Rewards of a generative judge: it grades each answer from 0 to 10, and the mean over several samples is the reward.

For those without a reward model. Any engine can judge; its replies are stored by the engine. A reply without a grade
counts for nothing, and an answer without any grade has no reward; why it was not read, or not given, is counted.
"""

import re
from collections.abc import Sequence

from rlhi.conversations import transcript
from rlhi.engine import Engine, Reply, Request, generate
from rlhi.records import Candidates, Message
from rlhi.render import prompt
from rlhi.reward.model import Score, Unscored
from rlhi.reward.reading import shortened, unscorable
from rlhi.reward.stage import JudgeConfig

MOST = 10.0
_GRADE = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*(?:/\s*10\s*)?\]\]")


class Judge:
    """Asks ``engine`` for several grades of each answer."""

    scale = "judge, 0 to 10"
    bounded = False

    def __init__(self, engine: Engine, config: JudgeConfig, seed: int, *, knows_persona: bool) -> None:
        self.engine = engine
        self.config = config
        self.seed = seed
        self.knows_persona = knows_persona

    def score(self, rows: Sequence[Candidates]) -> list[list[Score]]:
        """Mean grades, 0 to 10; null where no reply holds one."""
        asked = {(i, k): self._ask(row, k) for i, row in enumerate(rows) for k in range(len(row.answers))}
        requests = {at: one for at, one in asked.items() if isinstance(one, Request)}
        replies = generate(self.engine, list(requests.values()), self.config.sampling, self.config.samples, self.seed)
        grades = {at: _mean(own) for at, own in zip(requests, replies, strict=True)}
        found = {at: one if isinstance(one, Unscored) else grades[at] for at, one in asked.items()}
        return [[found[i, k] for k in range(len(row.answers))] for i, row in enumerate(rows)]

    @property
    def note(self) -> str:
        """Who judges, and how."""
        seen = "knowing the persona" if self.knows_persona else "without the persona (user-agnostic)"
        return f"The reward is the mean of {self.config.samples} grades from 0 to 10 by a judge, {seen}."

    @property
    def identity(self) -> str:
        """The engine's: its replies are stored by it."""
        return self.engine.identity

    def _ask(self, row: Candidates, place: int) -> Request | Unscored:
        """The request for one answer's grade; old turns go first where it is too long."""
        answer = row.answers[place].text
        if (why := unscorable(answer, row.persona, knows_persona=self.knows_persona)) is not None:
            return why
        persona = row.persona if self.knows_persona else None
        ways = (
            Request(f"{row.id} {place}", (Message("user", _text(context, persona, answer)),), None, row.user_id or None)
            for context in shortened(row.context)
        )
        fits = (way for way in ways if self.engine.count_tokens(way) <= self.engine.max_prompt_tokens)
        return next(fits, Unscored("too_long"))


def read_grade(text: str) -> float | None:
    """The last grade in double brackets, from 0 to 10; null where there is none."""
    written = _GRADE.findall(text)
    grade = float(written[-1]) if written else None
    return grade if grade is not None and grade <= MOST else None


def _mean(replies: Sequence[Reply]) -> Score:
    grades = [grade for reply in replies if (grade := read_grade(reply.text)) is not None]
    if grades:
        return sum(grades) / len(grades)
    unread = (Unscored("unreadable", each.text) for each in replies if each.missing is None)
    return next(unread, Unscored(replies[0].missing or "unreadable"))


def _text(context: Sequence[Message], persona: str | None, answer: str) -> str:
    said = transcript(context)
    return prompt("rlhi.reward", "judge.j2", conversation_history=said, persona=persona, answer=answer)

"""A reward without weights of its own: how much likelier an answer is for a model that knows the persona.

    r(y | x, p) = (log pi(y | x, p) - log pi(y | x)) / |y|          in nats per token, pi the base model

It stands in for a reward model so that everything runs on a laptop. It measures fit to the persona as the base model
understands it, and nothing else: not correctness, not helpfulness. A small base model understands little.

User-agnostic (``knows_persona=False``) the gain would always be zero, so the reward is the average log-probability per
token without the persona, log pi(y | x) / |y|.
"""

from collections.abc import Sequence

from rlhi.engine.models import Policy
from rlhi.engine.prefix import continuation_logprobs
from rlhi.records import Candidates


class PersonaLikelihood:
    """The embedded reward; see the module's docstring for what it is and is not."""

    def __init__(self, policy: Policy, batch_size: int, *, knows_persona: bool) -> None:
        self.policy = policy
        self.batch_size = batch_size
        self.knows_persona = knows_persona

    @property
    def note(self) -> str:
        """One sentence for manifest and report."""
        what = (
            "average gain in log-probability per token from knowing the persona"
            if self.knows_persona
            else ("average log-probability per token, without the persona")
        )
        return (
            f"The reward is the {what}, under the base model {self.policy.config.id}. It stands in for a reward model."
        )

    def score(self, rows: Sequence[Candidates]) -> list[list[float | None]]:
        """Rewards in nats per token. Null for an empty answer, a prompt that is too long, or a missing persona."""
        rewards: list[list[float | None]] = [[None] * len(row.answers) for row in rows]
        usable = [i for i, row in enumerate(rows) if self._fits(row)]
        answers = [[self.policy.renderer.answer(answer.text) for answer in rows[i].answers] for i in usable]
        without = self._logprobs([self._prompt(rows[i], None) for i in usable], answers, "without persona")
        given = without
        if self.knows_persona:
            given = self._logprobs([self._prompt(rows[i], rows[i].persona) for i in usable], answers, "with persona")
        for i, tokens, high, low in zip(usable, answers, given, without, strict=True):
            for k, (ids, a, b) in enumerate(zip(tokens, high, low, strict=True)):
                if rows[i].answers[k].text.strip():
                    rewards[i][k] = (a - b if self.knows_persona else a) / len(ids)
        return rewards

    def _fits(self, row: Candidates) -> bool:
        if self.knows_persona and row.persona is None:
            return False
        return len(self._prompt(row, row.persona)) <= self.policy.config.max_prompt_tokens

    def _prompt(self, row: Candidates, persona: str | None) -> list[int]:
        return self.policy.renderer.prompt(row.context, persona)

    def _logprobs(self, prompts: list[list[int]], answers: list[list[list[int]]], what: str) -> list[list[float]]:
        found: list[list[float]] = continuation_logprobs(self.policy, prompts, answers, self.batch_size, what)
        return found

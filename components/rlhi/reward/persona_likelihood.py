"""A reward without weights of its own: how much likelier an answer is for a model that knows the persona.

    r(y | x, p) = (log pi(y | x, p) - log pi(y | x)) / |y|          in nats per token, pi the base model

It stands in for a reward model so that everything runs on a laptop. It measures fit to the persona as the base model
understands it, and nothing else: not correctness, not helpfulness. A small base model understands little.

User-agnostic (``knows_persona=False``) the gain would always be zero, so the reward is the average log-probability per
token without the persona, log pi(y | x) / |y|.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from rlhi.config import digest
from rlhi.engine.models import Policy
from rlhi.records import Candidates
from rlhi.render import prompt
from rlhi.reward.model import Score, Unscored, number
from rlhi.reward.reading import shortened, unscorable
from rlhi.trees import Layout, Tree, branch_logprobs


class PersonaLikelihood:
    """The embedded reward; see the module's docstring for what it is and is not."""

    scale = "nats per token"
    bounded = False

    def __init__(self, policy: Policy, layout: Layout, *, knows_persona: bool) -> None:
        self.policy = policy
        self.layout: Layout = layout
        self.knows_persona = knows_persona

    @property
    def identity(self) -> str:
        """Base model, template, persona's role and prompt, and what is computed with."""
        policy, renderer, config = self.policy, self.policy.renderer, self.policy.config
        persona = [renderer.persona_role, prompt("rlhi", "persona_guided.j2", persona=""), self.knows_persona]
        how = digest(str([renderer.template_hash, persona, config.max_prompt_tokens]))
        return f"persona-likelihood {policy.weights} {how} {policy.dtype} {policy.device.type} {self.layout}"

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

    def score(self, rows: Sequence[Candidates]) -> list[list[Score]]:
        """Rewards in nats per token. Null for an empty answer, a missing persona, or a prompt that stays too long."""
        found: list[list[Score]] = [[self._unscorable(row, answer.text) for answer in row.answers] for row in rows]
        usable = {i: fitted for i, row in enumerate(rows) if (fitted := self._fitted(row)) is not None}
        answers = [[self.policy.renderer.answer(answer.text) for answer in row.answers] for row in usable.values()]
        without = self._logprobs([self._prompt(row, None) for row in usable.values()], answers, "without persona")
        given = without
        if self.knows_persona:
            prompts = [self._prompt(row, row.persona) for row in usable.values()]
            given = self._logprobs(prompts, answers, "with persona")
        for (i, row), tokens, high, low in zip(usable.items(), answers, given, without, strict=True):
            for k, (ids, a, b) in enumerate(zip(tokens, high, low, strict=True)):
                if row.answers[k].text.strip():
                    found[i][k] = number((a - b if self.knows_persona else a) / len(ids))
        return found

    def _unscorable(self, row: Candidates, text: str) -> Unscored:
        return unscorable(text, row.persona, knows_persona=self.knows_persona) or Unscored("too_long")

    def _fitted(self, row: Candidates) -> Candidates | None:
        """The row without the oldest turns of its context, as far as its prompt must be cut; null where it cannot."""
        if self.knows_persona and row.persona is None:
            return None
        ways = (replace(row, context=context) for context in shortened(row.context))
        limit = self.policy.config.max_prompt_tokens
        return next((way for way in ways if len(self._prompt(way, way.persona)) <= limit), None)

    def _prompt(self, row: Candidates, persona: str | None) -> list[int]:
        return self.policy.renderer.prompt(row.context, persona)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _logprobs(self, prompts: list[list[int]], answers: list[list[list[int]]], what: str) -> list[list[float]]:
        trees = [Tree(prompt, own) for prompt, own in zip(prompts, answers, strict=True)]
        found = branch_logprobs(self.policy.model, trees, self.layout, what=what)
        return [own.tolist() for own in found]

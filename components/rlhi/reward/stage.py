"""Scores each candidate given its context and persona.

The paper scores with Athene-RM-8B, which reads context and persona (2.4). A reward model here is anything with `score`;
the config chooses. What there is now needs no weights of its own: see `persona_likelihood`, and note that it stands in
for a reward model.

An answer that cannot be scored keeps a null reward; a row that is left with fewer than two scored answers is dropped.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, ModelConfig, StageConfig
from rlhi.records import Candidates, Dropped


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class RewardConfig(StageConfig):
    """Which reward model, and whether it sees the persona."""

    kind: Literal["persona-likelihood"] = Field(default="persona-likelihood", description="Reward model.")
    model: ModelConfig = Field(default_factory=ModelConfig)
    persona: Literal["on", "off"] = Field(default="on", description="'off' is the user-agnostic baseline (3.3).")
    batch_size: int = Field(default=32, ge=1, description="Sequences computed at a time.")


class RewardModel(Protocol):
    """r(y | x, p): higher is better, on a scale of the model's own."""

    def score(self, rows: Sequence[Candidates]) -> list[list[float | None]]:
        """One reward per answer of each row, given the row's context and persona; null where there is none."""

    @property
    def note(self) -> str:
        """What the rewards mean, for manifest and report."""


def open_reward(config: RewardConfig) -> RewardModel:
    """The reward model that ``config`` names.

    Raises:
        InputError: it cannot be loaded.
    """
    from rlhi.engine.models import load_policy
    from rlhi.reward.persona_likelihood import PersonaLikelihood

    return PersonaLikelihood(load_policy(config.model), config.batch_size, knows_persona=config.persona == "on")


def run(candidates: Input[Candidates], scored: Output[Candidates], config: RewardConfig) -> None:
    """Writes the candidates with a reward on every answer."""
    rows = candidates.read()
    model = open_reward(config)
    kept, dropped = score(rows, model)
    scored.write(kept, dropped, len(rows))
    scored.note("reward", model.note)
    rewards = [answer.reward for row in kept for answer in row.answers if answer.reward is not None]
    scored.measure({"reward/mean": sum(rewards) / len(rewards)} if rewards else {})


def score(rows: Sequence[Candidates], model: RewardModel) -> tuple[list[Candidates], list[Dropped]]:
    """Rewards beside answers; what was scored before is scored anew."""
    kept, dropped = [], []
    for row, rewards in zip(rows, model.score(rows), strict=True):
        answers = tuple(
            dataclasses.replace(answer, reward=reward) for answer, reward in zip(row.answers, rewards, strict=True)
        )
        if sum(reward is not None for reward in rewards) >= 2:
            kept.append(dataclasses.replace(row, answers=answers))
        else:
            dropped.append(Dropped(row.id, "unscored"))
    return kept, dropped

"""Scores each candidate given its context and persona.

The paper scores with Athene-RM-8B, which reads context and persona (2.4). A reward model here is anything with `score`;
the config chooses: a sequence classifier in this process (`classifier`), the same on a vLLM server (`server`), a model
that grades (`judge`), or one that needs no weights of its own and stands in for a reward model (`persona-likelihood`).

A reward model that is loaded wrong gives numbers all the same, and ruins everything after it. So each keeps to a
contract (`contract`), ranks a few known answers before it scores anything (`probe`), and is refused where it does not.
An answer that cannot be scored keeps a null reward, counted by reason; a row that is left with fewer than two scored
answers is dropped. Scores are kept in the store of replies, so that nothing is scored twice.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output, user_rows
from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.questions import Said, keep_unread
from rlhi.records import Candidates, Dropped, Missing, Reason
from rlhi.reward.contract import Contract
from rlhi.reward.model import RewardModel, Score, Unscored
from rlhi.reward.probe import probe

log = logging.getLogger("rlhi")
ROWS = 16  # scored at once: what a kill costs at most


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class JudgeConfig:
    """How a judge grades."""

    samples: int = Field(default=4, ge=1, description="Grades of each answer; their mean is the reward.")
    sampling: SamplingConfig = Field(
        default_factory=lambda: SamplingConfig(temperature=0.7, top_p=1, max_tokens=256),
        description="How a grade and its reason are drawn.",
    )


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class RewardConfig(StageConfig):
    """Which reward model, how it reads, and whether it sees the persona."""

    kind: Literal["persona-likelihood", "classifier", "server", "judge"] = Field(
        default="persona-likelihood",
        description="Reward model: a classifier of `model`, the classifier behind `engine.server`, a judge by `engine`,"
        " or what stands in for one.",
    )
    model: ModelConfig = Field(default_factory=ModelConfig)
    contract: Contract | None = Field(
        default=None,
        description='How a classifier reads, as JSON: {"scale": NAME, "persona": "system" or "last-user", "bos": 0 to'
        ' 2, "max_tokens": N, "closing": TOKEN}; null takes the one beside the checkpoint, or the known one (Athene,'
        " Skywork-Reward-V2).",
    )
    engine: EngineConfig = Field(default_factory=EngineConfig)
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    persona: Literal["on", "off"] = Field(default="on", description="'off' is the user-agnostic baseline (3.3).")
    layout: Literal["packed", "padded"] = Field(
        default="packed", description="A prompt computed once for all its answers, or one padded row for each."
    )

    @property
    def asks_models(self) -> bool:
        """A judge is asked through an engine; the others are computed, or asked, by themselves."""
        return self.kind == "judge"


def open_reward(config: RewardConfig) -> RewardModel:
    """The reward model that ``config`` names, checked, behind the store of replies where one is configured.

    Raises:
        InputError: it cannot be loaded, does not keep to its contract, or does not pass the probe.
    """
    model = _load(config)
    if config.kind != "persona-likelihood":  # which does not claim to know a good answer
        log.info("reward: %s", probe(model))
    if config.kind == "judge":  # what it says, its engine stores
        return model
    return with_store(model, 4 * config.engine.server.concurrency if config.kind == "server" else ROWS)


def with_store(model: RewardModel, at_once: int = ROWS) -> RewardModel:
    """``model`` behind the store of replies, where one is configured: see `rlhi.engine.replies`.

    ``at_once`` rows are scored, and stored, together.

    Raises:
        InputError: the store cannot be used.
    """
    from rlhi.engine.replies import open_replies
    from rlhi.reward.stored import StoredReward

    store = open_replies(model.identity)
    return model if store is None else StoredReward(model, store, at_once)


def _load(config: RewardConfig) -> RewardModel:
    knows = config.persona == "on"
    if config.kind == "judge":
        from rlhi.engine import open_engine
        from rlhi.reward.judge import Judge

        return Judge(open_engine(config.engine), config.judge, config.seed, knows_persona=knows)
    if config.kind == "server":
        from rlhi.reward.server import served_classifier

        return served_classifier(config.engine, config.contract, knows_persona=knows)
    if config.kind == "classifier":
        from rlhi.reward.classifier import load_classifier

        return load_classifier(config.model, config.contract, config.layout, knows_persona=knows)
    from rlhi.engine.models import load_policy
    from rlhi.reward.persona_likelihood import PersonaLikelihood

    return PersonaLikelihood(load_policy(config.model), config.layout, knows_persona=knows)


def run(candidates: Input[Candidates], scored: Output[Candidates], config: RewardConfig) -> None:
    """Writes the candidates with a reward on every answer, and what a judge said in place of a grade."""
    rows = candidates.read()
    model = open_reward(config)
    kept, dropped, nulls = score(rows, model)
    scored.holds(
        user_rows(candidates.path)
    )  # what could not be read is kept too; and who taught the policy that answered
    scored.write(kept, dropped, len(rows))
    scored.note("reward", model.note)
    scored.note("reward_scale", model.scale)
    rewards = [answer.reward for row in kept for answer in row.answers if answer.reward is not None]
    scored.measure({"reward/mean": sum(rewards) / len(rewards)} if rewards else {})
    scored.measure(_counted(nulls))
    keep_unread(scored, [Said(key, None, null.said) for key, null in nulls.items()])


def score(
    rows: Sequence[Candidates], model: RewardModel
) -> tuple[list[Candidates], list[Dropped], dict[str, Unscored]]:
    """Rewards beside answers; what was scored before is scored anew.

    Gives the rows kept, those dropped, and the answers without a score by ``ROW/PLACE``.
    """
    several = [row for row in rows if len(row.answers) >= 2]
    dropped = [Dropped(row.id, "too_few_answers") for row in rows if len(row.answers) < 2]
    kept: list[Candidates] = []
    nulls: dict[str, Unscored] = {}
    for row, scores in zip(several, model.score(several), strict=True):
        nulls |= {f"{row.id}/{k}": one for k, one in enumerate(scores) if isinstance(one, Unscored)}
        rewards = [reward(one) for one in scores]
        answers = tuple(
            dataclasses.replace(answer, reward=one) for answer, one in zip(row.answers, rewards, strict=True)
        )
        if sum(one is not None for one in rewards) >= 2:
            kept.append(dataclasses.replace(row, answers=answers))
        else:
            dropped.append(Dropped(row.id, _why(scores)))
    return kept, dropped, nulls


def reward(score: Score) -> float | None:
    """A score as records hold it."""
    return None if isinstance(score, Unscored) else score


def _why(scores: Sequence[Score]) -> Reason:
    """Why a row with too few scores is dropped: a judge that was not answered, else that there are too few."""
    whys = {one.why for one in scores if isinstance(one, Unscored)}
    return next((missing for missing in get_args(Missing) if missing in whys), "unscored")


def _counted(nulls: dict[str, Unscored]) -> dict[str, float]:
    """Answers without a score, by reason; said in the log too."""
    counts = Counter(null.why for null in nulls.values())
    if counts:
        log.info("reward: answers without a score: %s", ", ".join(f"{why} {n}" for why, n in counts.most_common()))
    return {f"reward/null/{why}": float(n) for why, n in counts.items()}

"""The settings of evaluate."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.errors import InputError
from rlhi.questions import Method
from rlhi.records import Axis, Mode, Opponent
from rlhi.reward.stage import RewardConfig


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class EvaluateConfig(StageConfig):
    """Who answers, who judges, against whom."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    champion_model: ModelConfig | None = Field(
        default=None,
        description="The model of opponent 'champion', as JSON; null is the one that --champion was trained from.",
    )
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    judge: EngineConfig = Field(default_factory=EngineConfig)
    method: Method = Field(
        default="choose",
        description="How the judge is asked: 'choose' compares the log-probabilities of [A] and [B], 'generate' lets it"
        " write, reasons first if it likes, and takes the last letter in brackets.",
    )
    judge_sampling: SamplingConfig = Field(
        default_factory=lambda: SamplingConfig(temperature=0, top_p=1, max_tokens=4096),
        description="How a verdict is written (method=generate).",
    )
    orders: Literal["both", "one"] = Field(
        default="both",
        description="Every comparison in both orders, or in one by seed, as the paper seems to do (3.4).",
    )
    calibrate: bool = Field(
        default=False, description="Take away each letter's score between two empty answers: for small judges."
    )
    reward: RewardConfig = Field(default_factory=RewardConfig)
    axes: tuple[Axis, ...] = Field(default=("personalization", "instruction-following", "usereval"), description="3.4.")
    modes: tuple[Mode, ...] = Field(
        default=("context-only", "persona-guided"),
        description='Inference settings (3.4), and two controls: "shuffled-persona" answers with another user\'s'
        ' persona, "shuffled-judge" judges persona-guided answers by another user\'s.',
    )
    opponents: tuple[Opponent, ...] = Field(
        default=("log",), description="The answer in the log (3.4), the base model's, or the champion's."
    )
    over_personalization: bool = Field(
        default=False,
        description="Ask of each turn whether the persona matters to it, and tell what quality a persona costs where"
        " it does not: one more question a turn.",
    )
    max_users: int = Field(default=100, ge=1, description="Evaluation users taken at most, by seed (3.4: 100).")
    max_turns: int | None = Field(
        default=None, ge=1, description="Held-out turns taken at most, by seed; null takes all."
    )
    batch_size: int = Field(default=32, ge=1, description="Sequences computed at a time.")
    resamples: int = Field(
        default=2000, ge=100, description="Resamples of users for the intervals, sign flips for the tests."
    )

    def check(self) -> None:
        """Refuses settings that contradict each other.

        Raises:
            InputError: calibration of a written verdict, or over-personalization without what it compares.
        """
        if self.calibrate and self.method != "choose":
            raise InputError(
                "evaluate.calibrate: takes away log-probabilities, method=generate has none; set calibrate=false"
            )
        compared = {"context-only", "persona-guided"} <= set(self.modes) and "instruction-following" in self.axes
        if self.over_personalization and not compared:
            raise InputError(
                "evaluate.over_personalization: compares context-only with persona-guided on instruction-following; add"
                " these to modes and axes"
            )

"""Every comparison of the paper, as a frozen value: recipes whose models are judged alike and put side by side.

An arm is a recipe, most often a ``replace`` of another; what arms share is computed once (`pipelines.plan`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from pipelines.names import named
from pipelines.recipes import (
    BASE_MODEL,
    ENGINE,
    FEW_USERS,
    LEARNING,
    MATH_REWRITES,
    NO_FILTER,
    RECIPES,
    REWRITES_FROM_SCRATCH,
    SFT_REWARDS,
    SFT_REWRITES,
    USER_AGNOSTIC_REWARDS,
    USER_BASED_REWARDS,
    USER_GUIDED_REWRITES,
    USERLESS,
    Recipe,
)
from rlhi.benchmark.stage import BenchmarkConfig
from rlhi.config import SamplingConfig
from rlhi.rip.config import Rules, Thresholds

ARM_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")  # of a task of KFP; a number at its end would be a round's


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Recipes to compare, the first of which the others are held against."""

    name: str
    summary: str
    arms: tuple[Recipe, ...]

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        for name in names:
            if not ARM_NAME.fullmatch(name) or re.search(r"-[0-9]+$|-shard-", name):
                raise ValueError(f"{self.name}: {name!r} names tasks, so it is of a-z, 0-9 and -, with no number last")
        if len(names) < 2 or len({*names}) < len(names):
            raise ValueError(f"{self.name}: needs two arms or more, each with a name of its own")
        if any({"evaluate", "benchmark"}.isdisjoint(arm.stages) for arm in self.arms):
            raise ValueError(f"{self.name}: an arm that is neither evaluated nor benchmarked cannot be compared")

    def each(self, change: Callable[[Recipe], Recipe]) -> Self:
        """It, with each of its arms changed."""
        return replace(self, arms=tuple(map(change, self.arms)))


def _rate(name: str, times: float) -> Recipe:
    dpo = USER_GUIDED_REWRITES.dpo
    rate = times * dpo.learning_rate
    return replace(
        USER_GUIDED_REWRITES,
        name=name,
        summary=f"{USER_GUIDED_REWRITES.summary} Learning rate {rate:g}.",
        dpo=replace(dpo, learning_rate=rate),
    )


def _paper_rate(name: str, rate: float) -> Recipe:
    """With the batch size that the rates are for (3.2)."""
    return replace(
        USER_GUIDED_REWRITES,
        name=name,
        summary=f"{USER_GUIDED_REWRITES.summary} Learning rate {rate:g}, batch size 64 (3.2).",
        dpo=replace(USER_GUIDED_REWRITES.dpo, learning_rate=rate, batch_size=64),
    )


BENCHMARK = BenchmarkConfig(engine=ENGINE, sampling=SamplingConfig(max_tokens=128), n=2, max_items=16)

TABLE_2 = Experiment(
    name="table-2",
    summary="User-based evaluation (Table 2): both methods, their baselines, and the model as it is. The paper trains"
    " on rewards online: --rounds.",
    arms=(BASE_MODEL, REWRITES_FROM_SCRATCH, USER_AGNOSTIC_REWARDS, USER_GUIDED_REWRITES, USER_BASED_REWARDS),
)

TABLE_4 = Experiment(
    name="table-4",
    summary="What math conversations teach (Table 4), on PRM800K or CHAMP: problems of --benchmarks, asked of the model"
    " as it is and of one trained on rewrites. At full size: benchmark.n=50, benchmark.max_items=null.",
    arms=(
        replace(BASE_MODEL, benchmark=BENCHMARK, leaves_out=(*LEARNING, *USERLESS)),
        replace(MATH_REWRITES, benchmark=BENCHMARK),
    ),
)

FILTERING = Experiment(
    name="filtering",
    summary="What filtering for quality and learning from both answers are worth (Fig. 3): without RIP's rules, and"
    " with fine-tuning on the chosen answers alone.",
    arms=(BASE_MODEL, USER_GUIDED_REWRITES, NO_FILTER, SFT_REWRITES, USER_BASED_REWARDS, SFT_REWARDS),
)

DIVERSITY = Experiment(
    name="diversity",
    summary="Whether many users teach more than few (Fig. 4): as many pairs from few users and from all of them. At"
    " full size: rip.max_users=10, and rip.max_pairs and rip.min_pairs as large as those users allow.",
    arms=(
        FEW_USERS,
        replace(
            FEW_USERS,
            name="all-users",
            summary="As many pairs as few-users learns from, of all users (4.2, Fig. 4).",
            rip=replace(FEW_USERS.rip, max_users=None),
        ),
    ),
)

LEARNING_RATES = Experiment(
    name="learning-rates",
    summary="Half, once and twice the learning rate of the embedded size; the paper's own are in learning-rates-paper.",
    arms=(_rate("half-rate", 0.5), _rate("usual-rate", 1), _rate("double-rate", 2)),
)

LEARNING_RATES_PAPER = Experiment(
    name="learning-rates-paper",
    summary="The learning rates that the paper sweeps, 5e-7 and 1e-6 (3.2): for a model and data of its size.",
    arms=(_paper_rate("lower-rate", 5e-7), _paper_rate("higher-rate", 1e-6)),
)

THRESHOLDS = Experiment(
    name="thresholds",
    summary="RIP's rules with absolute thresholds, with quantiles of the run's own pairs, and off (C.2). The paper's"
    " thresholds hold for Athene-RM-8B: set reward, rip.scale and rip.rewrite.absolute to use them.",
    arms=(
        replace(
            USER_GUIDED_REWRITES,
            name="absolute-thresholds",
            summary="The three rules with absolute thresholds, here on the scale of the embedded reward (C.2).",
            rip=replace(
                USER_GUIDED_REWRITES.rip,
                scale="nats per token",
                rewrite=Rules(absolute=Thresholds(min_rejected_length=175, min_rejected_reward=-0.1, max_gap=0.2)),
            ),
        ),
        replace(
            USER_GUIDED_REWRITES,
            name="quantile-thresholds",
            summary="The three rules with quantiles of the run's own pairs (C.2).",
        ),
        NO_FILTER,
    ),
)

EXPERIMENTS = (TABLE_2, TABLE_4, FILTERING, DIVERSITY, LEARNING_RATES, LEARNING_RATES_PAPER, THRESHOLDS)


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        InputError: there is none; the message names those there are and the closest.
    """
    return named(name, {each.name: each for each in EXPERIMENTS}, "experiment")


def find_any(name: str) -> Recipe | Experiment:
    """The recipe or the experiment of that name.

    Raises:
        InputError: there is neither.
    """
    return named(name, {each.name: each for each in (*RECIPES, *EXPERIMENTS)}, "recipe or experiment")


def arm(name: str) -> Recipe:
    """The recipe of that name, or the arm of an experiment that is none.

    Raises:
        InputError: there is neither.
    """
    arms = [each for experiment in EXPERIMENTS for each in experiment.arms]
    return named(name, {each.name: each for each in (*arms, *RECIPES)}, "recipe or arm")

"""Every named run, as a frozen value. A variant is ``dataclasses.replace`` of another.

Needs neither torch nor kfp: what a recipe does can be read, changed and checked anywhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self, cast

from pipelines.names import closest, named
from rlhi.analyze.stage import AnalyzeConfig
from rlhi.benchmark.stage import BenchmarkConfig
from rlhi.classify.stage import ClassifyConfig
from rlhi.cli import STAGES
from rlhi.config import EngineConfig, ModelConfig, SamplingConfig, StageConfig
from rlhi.dpo.config import DpoConfig
from rlhi.engine.sharded import MOST, Shard
from rlhi.errors import InputError
from rlhi.evaluate.config import EvaluateConfig
from rlhi.ingest.config import IngestConfig
from rlhi.persona.stage import PersonaConfig
from rlhi.promote.config import PromoteConfig
from rlhi.reconstruct.stage import ReconstructConfig
from rlhi.reward.stage import RewardConfig
from rlhi.rewrite.stage import RewriteConfig
from rlhi.rip.config import Quantiles, RipConfig, Rules
from rlhi.safety.stage import SafetyConfig
from rlhi.sample.stage import SampleConfig

DEFAULT_MODEL = ModelConfig().id
MOST_ROUNDS = 64  # each is a task or more for every stage of it
IN_ROUNDS = ("sample", "reward", "rip", "dpo")  # the stages that online training runs again and again
LEARNING = ("classify", "reconstruct", "rewrite", "sample", "reward", "rip", "dpo")
USERLESS = ("persona", "evaluate")  # what needs users who come back
WHOLE = (set[str](), set(LEARNING), set(USERLESS), {*LEARNING, *USERLESS})  # what a recipe may leave out


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One named run: the config of every stage it runs, None for those it does not.

    Of the configs that every recipe has, those of the stages in ``leaves_out`` are nobody's: the model as it is learns
    nothing, and conversations that are tied to no users have no personas.

    With several ``rounds`` training is online (2.4, 3.2): each samples answers to further prompts from the model of the
    round before, and trains that model on, against a reference that every ``reference_every`` rounds becomes the policy
    of that time; None keeps the base model.
    """

    name: str
    summary: str
    ingest: IngestConfig
    classify: ClassifyConfig
    persona: PersonaConfig
    reconstruct: ReconstructConfig | None = None
    rewrite: RewriteConfig | None = None
    sample: SampleConfig | None = None
    reward: RewardConfig
    rip: RipConfig
    dpo: DpoConfig
    evaluate: EvaluateConfig
    benchmark: BenchmarkConfig | None = None
    safety: SafetyConfig | None = None  # of the model and of its opponent, for promote
    promote: PromoteConfig | None = None
    analyze: AnalyzeConfig | None = None
    leaves_out: tuple[str, ...] = ()
    shards: Mapping[str, int] = field(default_factory=dict)  # by stage, where there are several
    rounds: int = 1
    reference_every: int | None = None

    def __post_init__(self) -> None:
        if (self.rewrite is None) == (self.sample is None):
            raise ValueError(f"{self.name}: needs one of rewrite and sample, and not both")
        if (self.safety is None) != (self.promote is None):
            raise ValueError(f"{self.name}: needs both of safety and promote, or neither")
        if set(self.leaves_out) not in WHOLE:
            raise ValueError(f"{self.name}: cannot leave out {', '.join(self.leaves_out)} alone")
        _check_rounds(self)
        for stage, count in self.shards.items():
            _check_shards(self, stage, count)

    @property
    def arms(self) -> "tuple[Recipe, ...]":
        """Itself: a recipe is an experiment of one arm."""
        return (self,)

    def each(self, change: Callable[["Recipe"], "Recipe"]) -> Self:
        """Itself, changed."""
        return cast(Self, change(self))

    @property
    def trains(self) -> bool:
        """Whether a model is trained, or looked at as it is."""
        return "dpo" not in self.leaves_out

    def rounds_of(self, stage: str) -> int:
        """How often the stage runs."""
        return self.rounds if stage in IN_ROUNDS else 1

    def config_in(self, stage: str, number: int) -> StageConfig:
        """The config of the stage in round ``number``, from 1: of sample, with the prompts that are that round's."""
        config = self.stages[stage]
        return replace(config, round=config.round + number - 1) if isinstance(config, SampleConfig) else config

    def reference_in(self, number: int) -> int | None:
        """The round whose model is the reference in round ``number``, from 1; None where that is the base model."""
        every = self.reference_every or self.rounds
        return (number - 1) // every * every or None

    def shards_of(self, stage: str) -> list[Shard]:
        """The shards that run before the stage; none where it asks for all by itself."""
        count = self.shards.get(stage, 1)
        return [Shard(number, count) for number in range(1, count + 1)] if count > 1 else []

    @property
    def stages(self) -> dict[str, StageConfig]:
        """The configs by stage, in the order in which the stages run."""
        run = [stage for stage in STAGES if stage not in self.leaves_out]
        return {stage: config for stage in run if (config := getattr(self, stage, None)) is not None}


def _check_rounds(recipe: Recipe) -> None:
    """Refuses rounds that are none, those of a recipe without sample, and a reference that would never follow."""
    rounds, every = recipe.rounds, recipe.reference_every
    if not 1 <= rounds <= MOST_ROUNDS:
        raise InputError(f"rounds={rounds}: give a number from 1 to {MOST_ROUNDS}")
    if rounds > 1 and recipe.sample is None:
        raise InputError(
            f"rounds={rounds}: {recipe.name} samples no answers, so there is nothing to repeat; leave it out"
        )
    if every is not None and not 1 <= every < rounds:
        raise InputError(
            f"reference_every={every}: of {rounds} rounds, the reference can follow after every 1 to {rounds - 1}; give"
            " fewer, or more rounds"
        )


# The embedded size: a real small model on two CPU cores. What is not named here is the paper's value.
MODEL = ModelConfig(max_prompt_tokens=640)
ENGINE = EngineConfig(model=MODEL)
JUDGE = EngineConfig(model=replace(MODEL, max_prompt_tokens=1536))  # it reads the context and answers to it
SAMPLING = SamplingConfig(max_tokens=48)
RULES = Rules(
    thresholds="quantile", quantile=Quantiles(min_rejected_length=0.25, min_rejected_reward=0.25, max_gap=0.75)
)
RIP = RipConfig(keep_cut=True, engine=JUDGE)  # of 48 tokens, few answers end by themselves
REWRITE = RewriteConfig(engine=ENGINE, sampling=SAMPLING, max_prompts=24)
SAMPLE = SampleConfig(engine=ENGINE, sampling=SAMPLING, n=4, labels=("initial",), max_prompts=24, keep_cut=True)

USER_GUIDED_REWRITES = Recipe(
    name="user-guided-rewrites",
    summary="Prefers the answer as revised by the user's own follow-up over the answer that was not good enough (2.3).",
    ingest=IngestConfig(eval_min_conversations=4, held_out=2),
    # asked about users, a model of 135M parameters takes "???" and "Thanks." for meaningful feedback as well
    classify=ClassifyConfig(engine=ENGINE, calibrate=True, meaningful_feedback=False),
    persona=PersonaConfig(engine=ENGINE, sampling=replace(SAMPLING, max_tokens=64), history_tokens=512),
    reconstruct=ReconstructConfig(engine=ENGINE, sampling=SAMPLING, only_before_feedback=True),
    rewrite=REWRITE,
    reward=RewardConfig(model=MODEL),
    rip=replace(RIP, rewrite=RULES),
    dpo=DpoConfig(model=MODEL, learning_rate=1e-4, batch_size=4, row_tokens=2048, max_tokens=768),
    evaluate=EvaluateConfig(
        model=MODEL,
        sampling=SAMPLING,
        judge=JUDGE,
        calibrate=True,
        reward=RewardConfig(model=MODEL),
        opponents=("log", "base"),
        max_users=8,
        max_turns=4,
    ),
    analyze=AnalyzeConfig(engine=ENGINE, calibrate=True),
)

USER_BASED_REWARDS = replace(
    USER_GUIDED_REWRITES,
    name="user-based-rewards",
    summary="Samples answers, scores them given the user's persona, and prefers the best over the worst (2.4).",
    reconstruct=None,
    rewrite=None,
    sample=SAMPLE,
    rip=replace(RIP, sample=RULES),
)

USER_BASED_REWARDS_ONLINE = replace(
    USER_BASED_REWARDS,
    name="user-based-rewards-online",
    summary="The same in rounds, each with answers of the model that the one before trained (2.4, 3.2: online DPO, beta"
    " 0.01). At full size dpo.learning_rate=1e-6 and dpo.batch_size=32 are the paper's.",
    sample=replace(SAMPLE, max_prompts=12),
    dpo=replace(USER_BASED_REWARDS.dpo, beta=0.01),
    rounds=2,
)

REWRITES_FROM_SCRATCH = replace(
    USER_GUIDED_REWRITES,
    name="rewrites-from-scratch",
    summary="Baseline: the answer is written anew, without the follow-up (3.3).",
    rewrite=replace(REWRITE, from_scratch=True),
)

USER_AGNOSTIC_REWARDS = replace(
    USER_BASED_REWARDS,
    name="user-agnostic-rewards",
    summary="Baseline: the reward does not see the persona (3.3).",
    reward=replace(USER_BASED_REWARDS.reward, persona="off"),
)

SFT_REWRITES = replace(
    USER_GUIDED_REWRITES,
    name="sft-rewrites",
    summary="Baseline: fine-tuning on the rewrites alone, no preference (3.3).",
    dpo=replace(USER_GUIDED_REWRITES.dpo, loss_type=("sft",)),
)

SFT_REWARDS = replace(
    USER_BASED_REWARDS,
    name="sft-rewards",
    summary="Baseline: fine-tuning on the best samples alone, no preference (3.3).",
    dpo=replace(USER_BASED_REWARDS.dpo, loss_type=("sft",)),
)

NO_FILTER = replace(
    USER_GUIDED_REWRITES,
    name="no-filter",
    summary="Ablation: pairs are trained on whatever RIP's rules say of them (C.2).",
    rip=replace(RIP, rewrite=Rules(thresholds="off")),
)

FEW_USERS = replace(
    USER_GUIDED_REWRITES,
    name="few-users",
    summary="Ablation: a fixed number of pairs, of few users (4.2, Fig. 4). At full size rip.max_users=10, and"
    " rip.max_pairs and rip.min_pairs what these users have.",
    rip=replace(USER_GUIDED_REWRITES.rip, max_users=2, max_pairs=4, min_pairs=4),
    dpo=replace(USER_GUIDED_REWRITES.dpo, validation_share=0),  # of users: of few, it would take more pairs
)

MATH_REWRITES = replace(
    USER_GUIDED_REWRITES,
    name="math-rewrites",
    summary="Rewrites of wrong solutions, by simulated users who say where the error is (3.1, C.3): PRM800K or CHAMP,"
    " no personas. Its measure is a benchmark (Table 4): --benchmarks FILES --set benchmark.n=50.",
    classify=replace(USER_GUIDED_REWRITES.classify, known="re-attempt with feedback", meaningful_feedback=False),
    reconstruct=None,  # the wrong solution is what was labelled
    rewrite=replace(REWRITE, engine=JUDGE, sampling=SamplingConfig(max_tokens=128)),  # solutions are long
    reward=RewardConfig(model=JUDGE.model, persona="off"),
    dpo=replace(USER_GUIDED_REWRITES.dpo, persona="off", max_tokens=1664),
    analyze=None,
    leaves_out=USERLESS,
)

BASE_MODEL = replace(
    USER_GUIDED_REWRITES,
    name="base-model",
    summary="Baseline: the model as it is, without training (Table 2).",
    evaluate=replace(USER_GUIDED_REWRITES.evaluate, opponents=("log",)),
    analyze=None,
    leaves_out=LEARNING,
)

RECIPES = (
    USER_GUIDED_REWRITES,
    USER_BASED_REWARDS,
    USER_BASED_REWARDS_ONLINE,
    MATH_REWRITES,
    REWRITES_FROM_SCRATCH,
    USER_AGNOSTIC_REWARDS,
    SFT_REWRITES,
    SFT_REWARDS,
    NO_FILTER,
    FEW_USERS,
    BASE_MODEL,
)


def find(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: there is none; the message names those there are and the closest.
    """
    return named(name, {recipe.name: recipe for recipe in RECIPES}, "recipe")


def config_of(recipe: Recipe, stage: str) -> StageConfig:
    """The config of one stage of ``recipe``.

    Raises:
        InputError: there is no such stage, or the recipe does not run it.
    """
    if stage not in STAGES:
        raise InputError(f"{stage}: no such stage{closest(stage, STAGES)}; one of {', '.join(recipe.stages)}")
    if stage not in recipe.stages:
        way = "; --promote MODEL adds it" if stage in ("safety", "promote") else ""
        raise InputError(f"{stage}: {recipe.name} does not run it; it runs {', '.join(recipe.stages)}{way}")
    return recipe.stages[stage]


def _check_shards(recipe: Recipe, stage: str, count: int) -> None:
    if not config_of(recipe, stage).asks_models:
        raise InputError(f"{stage}: asks no model, so it cannot be split into shards; leave it out")
    if not 1 <= count <= MOST:
        raise InputError(f"{stage}: {count} shards; give a number from 1 to {MOST}")

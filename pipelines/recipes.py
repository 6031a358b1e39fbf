"""Every named run, as a frozen value. A variant is ``dataclasses.replace`` of another.

Needs neither torch nor kfp: what a recipe does can be read, changed and checked anywhere.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from rlhi.analyze.stage import AnalyzeConfig
from rlhi.classify.stage import ClassifyConfig
from rlhi.cli import STAGES
from rlhi.config import EngineConfig, ModelConfig, SamplingConfig, StageConfig, as_dict, override
from rlhi.dpo.stage import DpoConfig
from rlhi.errors import InputError
from rlhi.evaluate.stage import EvaluateConfig
from rlhi.ingest.config import IngestConfig
from rlhi.persona.stage import PersonaConfig
from rlhi.reconstruct.stage import ReconstructConfig
from rlhi.reward.stage import RewardConfig
from rlhi.rewrite.stage import RewriteConfig
from rlhi.rip.stage import RipConfig
from rlhi.sample.stage import SampleConfig

DEFAULT_MODEL = ModelConfig().id


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One named run: the config of every stage it runs, None for those it does not."""

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
    analyze: AnalyzeConfig | None = None

    def __post_init__(self) -> None:
        if (self.rewrite is None) == (self.sample is None):
            raise ValueError(f"{self.name}: needs one of rewrite and sample, and not both")

    @property
    def stages(self) -> dict[str, StageConfig]:
        """The configs by stage, in the order in which the stages run."""
        return {stage: config for stage in STAGES if (config := getattr(self, stage)) is not None}


# The embedded size: a real small model on two CPU cores. What is not named here is the paper's value.
MODEL = ModelConfig(max_prompt_tokens=640)
ENGINE = EngineConfig(model=MODEL)
SAMPLING = SamplingConfig(max_tokens=48)
REWRITE = RewriteConfig(engine=ENGINE, sampling=SAMPLING, max_prompts=24)

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
    rip=RipConfig(thresholds="quantile", min_rejected_length=0.25, min_rejected_reward=0.25, max_gap=0.75),
    dpo=DpoConfig(model=MODEL, learning_rate=1e-4, batch_size=4, micro_batch_size=2, max_tokens=768),
    evaluate=EvaluateConfig(
        model=MODEL,
        sampling=SAMPLING,
        judge=EngineConfig(model=replace(MODEL, max_prompt_tokens=1536)),  # it reads the context and two answers
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
    sample=SampleConfig(engine=ENGINE, sampling=SAMPLING, n=4, labels=("initial",), max_prompts=24, keep_cut=True),
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
    dpo=replace(USER_GUIDED_REWRITES.dpo, loss="sft"),
)

SFT_REWARDS = replace(
    USER_BASED_REWARDS,
    name="sft-rewards",
    summary="Baseline: fine-tuning on the best samples alone, no preference (3.3).",
    dpo=replace(USER_BASED_REWARDS.dpo, loss="sft"),
)

NO_FILTER = replace(
    USER_GUIDED_REWRITES,
    name="no-filter",
    summary="Ablation: every pair is trained on, whatever its quality (C.2).",
    rip=replace(USER_GUIDED_REWRITES.rip, thresholds="off"),
)

RECIPES = (
    USER_GUIDED_REWRITES,
    USER_BASED_REWARDS,
    REWRITES_FROM_SCRATCH,
    USER_AGNOSTIC_REWARDS,
    SFT_REWRITES,
    SFT_REWARDS,
    NO_FILTER,
)


def find(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: there is none; the message names those there are and the closest.
    """
    known = {recipe.name: recipe for recipe in RECIPES}
    if name not in known:
        raise InputError(f"{name}: no such recipe{_closest(name, known)}; one of {', '.join(known)}")
    return known[name]


def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """``recipe`` with each ``stage.field=value`` set, in order; values are JSON or else plain strings.

    Sampling follow-ups, and not only first requests, needs earlier answers that are the policy's own: such a recipe
    gains the stage reconstruct (3.1).

    Raises:
        InputError: an unknown stage or field, a stage that the recipe does not run, or a value out of range.
    """
    for setting in settings:
        path, separator, value = setting.partition("=")
        stage, dot, field = path.strip().partition(".")
        if not separator or not dot:
            raise InputError(f"{setting}: not a setting; write stage.field=value, for instance dpo.epochs=1")
        config = _config_of(recipe, stage)
        recipe = _with_reconstruct(_with_stages(recipe, {stage: override(config, field, value.strip(), stage)}))
    return recipe


def with_model(recipe: Recipe, model: str) -> Recipe:
    """``recipe`` with ``model`` wherever the default model is: policy, judge and reward model alike."""
    if not model:
        raise InputError("the model is empty; give a Hugging Face id or a local folder")

    def swapped(found: ModelConfig) -> ModelConfig:
        return replace(found, id=model) if found.id == DEFAULT_MODEL else found

    return _with_stages(recipe, {stage: _each(config, ModelConfig, swapped) for stage, config in recipe.stages.items()})


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """``recipe`` with ``seed`` in every stage.

    Raises:
        InputError: the seed is negative.
    """
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; give 0 or more")

    def seeded(found: StageConfig) -> StageConfig:
        return replace(found, seed=seed)

    return _with_stages(recipe, {stage: _each(config, StageConfig, seeded) for stage, config in recipe.stages.items()})


def differences(recipe: Recipe) -> dict[str, Any]:
    """The settings, as ``stage.field``, whose value is not the paper's default."""
    return {
        path: value
        for stage, config in recipe.stages.items()
        for path, value in changed(config, type(config)(), f"{stage}.").items()
    }


def changed(config: object, usual: object, prefix: str) -> dict[str, Any]:
    """The leaves of ``config`` that are not those of ``usual``, by dotted path behind ``prefix``."""
    return dict(_changed(as_dict(config), as_dict(usual), prefix))


def _config_of(recipe: Recipe, stage: str) -> StageConfig:
    if stage not in STAGES:
        raise InputError(f"{stage}: no such stage{_closest(stage, STAGES)}; one of {', '.join(recipe.stages)}")
    if stage not in recipe.stages:
        raise InputError(f"{stage}: {recipe.name} does not run it; it runs {', '.join(recipe.stages)}")
    return recipe.stages[stage]


def _with_reconstruct(recipe: Recipe) -> Recipe:
    if recipe.sample is None or recipe.reconstruct is not None or set(recipe.sample.labels) <= {"initial"}:
        return recipe
    return replace(recipe, reconstruct=ReconstructConfig(engine=recipe.sample.engine, sampling=recipe.sample.sampling))


def _with_stages(recipe: Recipe, configs: Mapping[str, StageConfig]) -> Recipe:
    values: dict[str, Any] = dict(configs)
    return replace(recipe, **values)


def _closest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else ""


C = TypeVar("C")
P = TypeVar("P")


def _each(config: C, kind: type[P], change: Callable[[P], P]) -> C:
    """``config`` with every part of ``kind``, itself included, changed."""
    parts = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    inner = {name: _each(part, kind, change) for name, part in parts.items() if dataclasses.is_dataclass(part)}
    found: Any = replace(config, **inner)  # type: ignore[type-var]
    if isinstance(found, kind):
        found = change(found)
    return cast(C, found)


def _changed(values: Mapping[str, Any], usual: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _changed(value, usual[name], f"{prefix}{name}.")
        elif value != usual[name]:
            yield prefix + name, value

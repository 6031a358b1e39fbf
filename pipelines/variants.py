"""Recipes with something changed: settings, the model, the seed, shards, rounds; and what is changed in a recipe."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from pipelines.recipes import DEFAULT_MODEL, Recipe, config_of
from rlhi.benchmark.stage import BenchmarkConfig
from rlhi.config import EngineConfig, ModelConfig, StageConfig, as_dict, override
from rlhi.engine.sharded import MOST
from rlhi.errors import InputError
from rlhi.evaluate.config import EvaluateConfig
from rlhi.promote.config import PromoteConfig
from rlhi.reconstruct.stage import ReconstructConfig
from rlhi.safety.stage import SafetyConfig

SAFETY_TOKENS = 256


def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """``recipe`` with each ``stage.field=value`` set, in order; values are JSON or else plain strings.

    Sampling follow-ups, and not only first requests, needs earlier answers that are the policy's own: such a recipe
    gains the stage reconstruct (3.1). A setting of benchmark, which no recipe runs by itself, adds that stage: the
    model that was trained is asked what ``--benchmarks`` names (3.4).

    Raises:
        InputError: an unknown stage or field, a stage that the recipe does not run, or a value out of range.
    """
    for setting in settings:
        path, separator, value = setting.partition("=")
        stage, dot, field = path.strip().partition(".")
        if not separator or not dot:
            raise InputError(f"{setting}: not a setting; write stage.field=value, for instance dpo.epochs=1")
        if stage == "benchmark" and recipe.benchmark is None:
            asked = recipe.dpo if recipe.trains else recipe.evaluate
            recipe = replace(recipe, benchmark=BenchmarkConfig(engine=EngineConfig(model=asked.model), seed=asked.seed))
        config = config_of(recipe, stage)
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


def with_shards(recipe: Recipe, given: Iterable[str]) -> Recipe:
    """``recipe`` with its stages in shards: ``8`` of each stage that asks a model, ``sample=16`` of one; in order.

    Raises:
        InputError: not a number from 1 to 64, or a stage that the recipe does not run or that asks no model.
    """
    shards = dict(recipe.shards)
    for setting in given:
        read = re.fullmatch(r"(?:(\w+)=)?([0-9]{1,4})", setting)
        if read is None:
            raise InputError(f"--shards {setting}: give a number from 1 to {MOST}, or STAGE=N, for instance sample=16")
        asking = [name for name, config in recipe.stages.items() if config.asks_models]
        shards |= dict.fromkeys([read[1]] if read[1] else asking, int(read[2]))
    return replace(recipe, shards=shards)


def with_rounds(recipe: Recipe, rounds: int | None, reference_every: int | None) -> Recipe:
    """``recipe`` with so many rounds of online training, and its reference following after so many; None leaves it.

    Raises:
        InputError: a number of rounds that cannot be, or a recipe that cannot repeat its stages.
    """
    every = recipe.reference_every if reference_every is None else reference_every
    return replace(recipe, rounds=recipe.rounds if rounds is None else rounds, reference_every=every)


def with_promotion(recipe: Recipe, name: str) -> Recipe:
    """``recipe`` whose model is held against the champion of the registered model ``name`` and goes through the gate.

    The base model, against whom the first of all is held, is an opponent too. That the gate refuses is no failure.

    Raises:
        InputError: a name that cannot be, or a recipe that trains no model or compares it with none.
    """
    if not recipe.trains or "evaluate" in recipe.leaves_out:
        raise InputError(f"--promote {name}: {recipe.name} makes no model that is evaluated on users; leave it out")
    opponents = (*(each for each in recipe.evaluate.opponents if each not in ("base", "champion")), "base")
    evaluate = replace(recipe.evaluate, opponents=opponents)
    promote = PromoteConfig(fail_when_refused=False, seed=evaluate.seed)
    safety = replace(safety_of(evaluate, recipe.dpo.model), seed=evaluate.seed)
    return replace(recipe, evaluate=evaluate, safety=safety, promote=override(promote, "name", name, "promote"))


def safety_of(evaluate: EvaluateConfig, model: ModelConfig) -> SafetyConfig:
    """How safe ``model`` is, by the judge of its evaluation, asked in the same way."""
    usual = SafetyConfig(
        engine=EngineConfig(model=model), judge=evaluate.judge, method=evaluate.method, calibrate=evaluate.calibrate
    )
    tokens = min(SAFETY_TOKENS, evaluate.sampling.max_tokens)
    return replace(usual, sampling=replace(usual.sampling, max_tokens=tokens))


def differences(recipe: Recipe) -> dict[str, Any]:
    """The settings, as ``stage.field``, whose value is not the paper's default."""
    return {
        path: value
        for stage, config in recipe.stages.items()
        for path, value in changed(config, type(config)(), f"{stage}.").items()
    }


def between(one: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """The settings of the stages that both run, as ``stage.field``, whose values differ: that of each."""
    found: dict[str, tuple[Any, Any]] = {}
    for stage in (stage for stage in one.stages if stage in other.stages):
        left, right = one.stages[stage], other.stages[stage]
        theirs = changed(right, left, f"{stage}.")
        found |= {path: (value, theirs[path]) for path, value in changed(left, right, f"{stage}.").items()}
    return found


def changed(config: object, usual: object, prefix: str) -> dict[str, Any]:
    """The leaves of ``config`` that are not those of ``usual``, by dotted path behind ``prefix``."""
    return dict(_changed(as_dict(config), as_dict(usual), prefix))


def _with_reconstruct(recipe: Recipe) -> Recipe:
    if recipe.sample is None or recipe.reconstruct is not None or set(recipe.sample.labels) <= {"initial"}:
        return recipe
    return replace(recipe, reconstruct=ReconstructConfig(engine=recipe.sample.engine, sampling=recipe.sample.sampling))


def _with_stages(recipe: Recipe, configs: Mapping[str, StageConfig]) -> Recipe:
    values: dict[str, Any] = dict(configs)
    return replace(recipe, **values)


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
        if isinstance(value, dict) and isinstance(usual.get(name), dict):
            yield from _changed(value, usual[name], f"{prefix}{name}.")
        elif value != usual.get(name):
            yield prefix + name, value

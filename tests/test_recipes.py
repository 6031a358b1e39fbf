import subprocess
import sys
from dataclasses import fields, is_dataclass, replace

import pytest

from pipelines import listing, recipes
from pipelines.recipes import NO_FILTER, RECIPES, USER_BASED_REWARDS, USER_GUIDED_REWRITES, Recipe
from rlhi.config import ModelConfig
from rlhi.errors import InputError


def models_in(config: object) -> list[ModelConfig]:
    if isinstance(config, ModelConfig):
        return [config]
    if not is_dataclass(config):
        return []
    return [model for field in fields(config) for model in models_in(getattr(config, field.name))]


def test_recipes_need_neither_torch_nor_kfp() -> None:
    code = "import sys, pipelines.recipes; print([m for m in ('torch', 'transformers', 'kfp') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_names_are_unique_and_findable() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
    assert all(recipes.find(recipe.name) is recipe for recipe in RECIPES)


def test_unknown_recipe_is_refused_with_the_closest() -> None:
    with pytest.raises(InputError, match=r"no such recipe, did you mean user-guided-rewrites\?; one of user-guided"):
        recipes.find("user-guided-rewrite")


def test_rewards_recipe_samples_and_neither_rewrites_nor_reconstructs() -> None:
    stages = list(USER_BASED_REWARDS.stages)
    assert stages == ["ingest", "classify", "persona", "sample", "reward", "rip", "dpo", "evaluate", "analyze"]


def test_sampling_follow_ups_brings_reconstruct_back() -> None:
    changed = recipes.with_settings(USER_BASED_REWARDS, ['sample.labels=["initial", "new"]'])
    assert "reconstruct" in changed.stages
    assert changed.reconstruct is not None
    assert changed.reconstruct.only_before_feedback is False


def test_recipe_with_both_ways_to_get_candidates_is_refused() -> None:
    with pytest.raises(ValueError, match="one of rewrite and sample"):
        replace(USER_GUIDED_REWRITES, sample=USER_BASED_REWARDS.sample)


def test_settings_are_json_or_plain_text_in_order() -> None:
    changed = recipes.with_settings(
        USER_GUIDED_REWRITES,
        ["dpo.epochs=2", "dpo.loss=sft", "rewrite.sampling.temperature=0", "evaluate.max_turns=null", "dpo.epochs=5"],
    )
    assert (changed.dpo.epochs, changed.dpo.loss) == (5, "sft")
    assert changed.rewrite is not None
    assert changed.rewrite.sampling.temperature == 0
    assert changed.evaluate.max_turns is None
    assert USER_GUIDED_REWRITES.dpo.loss == "dpo"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("dop.epochs=1", "dop: no such stage, did you mean dpo"),
        ("sample.n=8", "sample: user-guided-rewrites does not run it; it runs ingest, classify"),
        ("dpo.epoch=1", "dpo.epoch: no such field"),
        ("dpo.model.name=x", "dpo.model.name: no such field"),
        ("dpo.beta=-1", "dpo.beta: input should be greater than 0, got -1"),
        ("dpo.beta", "not a setting"),
        ("beta=1", "not a setting"),
    ],
)
def test_bad_setting_is_refused(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipes.with_settings(USER_GUIDED_REWRITES, [setting])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_model_replaces_every_default(recipe: Recipe) -> None:
    changed = recipes.with_model(recipe, "org/model")
    models = [model for config in changed.stages.values() for model in models_in(config)]
    assert {model.id for model in models} == {"org/model"}
    before = [model for config in recipe.stages.values() for model in models_in(config)]
    assert [replace(model, id=recipes.DEFAULT_MODEL) for model in models] == before


def test_model_that_was_chosen_stays() -> None:
    chosen = recipes.with_settings(USER_GUIDED_REWRITES, ["evaluate.judge.model.id=org/judge"])
    changed = recipes.with_model(chosen, "org/policy")
    assert changed.evaluate.judge.model.id == "org/judge"
    assert changed.dpo.model.id == "org/policy"


def test_seed_reaches_every_stage() -> None:
    changed = recipes.with_seed(USER_GUIDED_REWRITES, 7)
    assert {config.seed for config in changed.stages.values()} == {7}
    assert changed.evaluate.reward.seed == 7


def test_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="seed"):
        recipes.with_seed(USER_GUIDED_REWRITES, -1)


def test_differences_are_what_the_paper_does_not_say() -> None:
    found = recipes.differences(NO_FILTER)
    assert found["rip.thresholds"] == "off"
    assert found["classify.engine.model.max_prompt_tokens"] == 640
    assert "dpo.beta" not in found


def test_listing_leaves_shared_settings_to_the_text_below() -> None:
    shared = listing.shared_settings(RECIPES)
    assert shared["dpo.learning_rate"] == USER_GUIDED_REWRITES.dpo.learning_rate
    assert "rip.thresholds" not in shared
    assert f"dpo.learning_rate={USER_GUIDED_REWRITES.dpo.learning_rate}" in listing.shared_text(RECIPES)

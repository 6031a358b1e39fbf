import io
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace

import pytest
from rich.console import Console

from pipelines import listing, recipes, variants
from pipelines.recipes import (
    NO_FILTER,
    RECIPES,
    USER_BASED_REWARDS,
    USER_BASED_REWARDS_ONLINE,
    USER_GUIDED_REWRITES,
    Recipe,
)
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
    changed = variants.with_settings(USER_BASED_REWARDS, ['sample.labels=["initial", "new"]'])
    assert "reconstruct" in changed.stages
    assert changed.reconstruct is not None
    assert changed.reconstruct.only_before_feedback is False


def test_recipe_with_both_ways_to_get_candidates_is_refused() -> None:
    with pytest.raises(ValueError, match="one of rewrite and sample"):
        replace(USER_GUIDED_REWRITES, sample=USER_BASED_REWARDS.sample)


def test_settings_are_json_or_plain_text_in_order() -> None:
    changed = variants.with_settings(
        USER_GUIDED_REWRITES,
        [
            "dpo.epochs=2",
            'dpo.loss_type=["sft"]',
            "rewrite.sampling.temperature=0",
            "evaluate.max_turns=null",
            "dpo.epochs=5",
        ],
    )
    assert (changed.dpo.epochs, changed.dpo.loss_type) == (5, ("sft",))
    assert changed.rewrite is not None
    assert changed.rewrite.sampling.temperature == 0
    assert changed.evaluate.max_turns is None
    assert USER_GUIDED_REWRITES.dpo.loss_type == ("sigmoid",)


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
        variants.with_settings(USER_GUIDED_REWRITES, [setting])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_model_replaces_every_default(recipe: Recipe) -> None:
    changed = variants.with_model(recipe, "org/model")
    models = [model for config in changed.stages.values() for model in models_in(config)]
    assert {model.id for model in models} == {"org/model"}
    before = [model for config in recipe.stages.values() for model in models_in(config)]
    assert [replace(model, id=recipes.DEFAULT_MODEL) for model in models] == before


def test_model_that_was_chosen_stays() -> None:
    chosen = variants.with_settings(USER_GUIDED_REWRITES, ["evaluate.judge.model.id=org/judge"])
    changed = variants.with_model(chosen, "org/policy")
    assert changed.evaluate.judge.model.id == "org/judge"
    assert changed.dpo.model.id == "org/policy"


def test_seed_reaches_every_stage() -> None:
    changed = variants.with_seed(USER_GUIDED_REWRITES, 7)
    assert {config.seed for config in changed.stages.values()} == {7}
    assert changed.evaluate.reward.seed == 7


def test_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="seed"):
        variants.with_seed(USER_GUIDED_REWRITES, -1)


def test_prompts_of_a_round_are_those_after_the_last_rounds() -> None:
    online = variants.with_rounds(USER_BASED_REWARDS, 3, None)
    rounds = [online.config_in("sample", number) for number in (1, 2, 3)]
    assert rounds == [replace(online.sample, round=number) for number in (1, 2, 3)]  # type: ignore[type-var]
    assert online.config_in("dpo", 3) == online.dpo


@pytest.mark.parametrize(
    ("every", "references"),
    [(None, [None] * 6), (1, [None, 1, 2, 3, 4, 5]), (2, [None, None, 2, 2, 4, 4]), (5, [None] * 5 + [5])],
)
def test_reference_follows_the_policy_after_so_many_rounds(every: int | None, references: list[int | None]) -> None:
    online = variants.with_rounds(USER_BASED_REWARDS, 6, every)
    assert [online.reference_in(number) for number in range(1, 7)] == references


@pytest.mark.parametrize(
    ("recipe", "rounds", "every", "told"),
    [
        (USER_BASED_REWARDS, 0, None, "rounds=0: give a number from 1 to 64"),
        (USER_BASED_REWARDS, 65, None, "rounds=65: give"),
        (USER_GUIDED_REWRITES, 2, None, "rounds=2: user-guided-rewrites samples no answers"),
        (USER_BASED_REWARDS, None, 1, "reference_every=1: of 1 rounds, the reference"),
        (USER_BASED_REWARDS, 3, 3, "reference_every=3: of 3 rounds, .* after every 1 to 2"),
        (USER_BASED_REWARDS, 3, 0, "reference_every=0"),
    ],
)
def test_rounds_that_cannot_be_are_refused(recipe: Recipe, rounds: int | None, every: int | None, told: str) -> None:
    with pytest.raises(InputError, match=told):
        variants.with_rounds(recipe, rounds, every)


def test_listing_tells_what_is_repeated() -> None:
    told = io.StringIO()
    Console(file=told, width=400).print(listing.recipes_table([USER_BASED_REWARDS_ONLINE]))
    assert "ingest, classify, persona, 2 times (sample, reward, rip, dpo), evaluate, analyze" in told.getvalue()


def test_differences_are_what_the_paper_does_not_say() -> None:
    found = variants.differences(NO_FILTER)
    assert found["rip.rewrite.thresholds"] == "off"
    assert found["classify.engine.model.max_prompt_tokens"] == 640
    assert "dpo.beta" not in found


def test_listing_leaves_shared_settings_to_the_text_below() -> None:
    shared = listing.shared_settings(RECIPES)
    assert shared["dpo.learning_rate"] == USER_GUIDED_REWRITES.dpo.learning_rate
    assert "rip.rewrite.thresholds" not in shared
    assert f"dpo.learning_rate={USER_GUIDED_REWRITES.dpo.learning_rate}" in listing.shared_text(RECIPES)

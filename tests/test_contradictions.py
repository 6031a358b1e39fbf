from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipelines import contradictions, variants
from pipelines.recipes import (
    BASE_MODEL,
    MATH_REWRITES,
    RECIPES,
    USER_BASED_REWARDS,
    USER_BASED_REWARDS_ONLINE,
    USER_GUIDED_REWRITES,
    Recipe,
)
from rlhi.errors import InputError
from rlhi.reward.persona_likelihood import PersonaLikelihood


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipes_do_not_contradict_themselves(recipe: Recipe) -> None:
    contradictions.check(recipe)


@pytest.mark.parametrize(
    ("recipe", "settings", "told"),
    [
        (USER_GUIDED_REWRITES, ["rip.sample.thresholds=off"], r"rip\.sample is set, but .*; set rip\.rewrite"),
        (
            USER_GUIDED_REWRITES,
            ["rip.rewrite.thresholds=absolute"],
            "meant for .*'Athene-RM-8B', these are on 'nats per",
        ),
        (USER_BASED_REWARDS, ["rip.rewrite.absolute.max_gap=2"], r"rip\.rewrite is set, but .*; set rip\.sample"),
        (USER_BASED_REWARDS, ["sample.max_prompts=9", "rip.min_pairs=10"], r"rip\.min_pairs=10 is above sample\.max_p"),
        (USER_BASED_REWARDS, ["rip.keep_cut=false"], r"sample\.keep_cut=true: rip leaves out"),
        (USER_BASED_REWARDS, ["rip.check_follow_ups=true"], r"learns from no follow-ups"),
        (USER_BASED_REWARDS_ONLINE, ["sample.engine.kind=openai"], r"sample\.engine\.kind='openai': a server goes on"),
        (
            USER_BASED_REWARDS_ONLINE,
            ["sample.engine.model.id=org/other"],
            r"sample\.engine\.model\.id='org/other' is not dpo\.model\.id='embedded'",
        ),
        (
            USER_BASED_REWARDS_ONLINE,
            ["dpo.model.persona_role=user"],
            r"persona_role='system' is not dpo\.model\.persona_role='user'",
        ),
        (
            USER_GUIDED_REWRITES,
            ["rip.max_per_conversation=3", "rip.max_per_user=2"],
            r"rip\.max_per_conversation=3 is above rip\.max_per_user=2",
        ),
    ],
)
def test_settings_that_cannot_be_meant_together_are_refused(recipe: Recipe, settings: Sequence[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        contradictions.check(variants.with_settings(recipe, settings))


def test_absolute_thresholds_for_the_reward_that_is_there_may_be_asked_for() -> None:
    settings = ["rip.rewrite.thresholds=absolute", "rip.scale=nats per token"]
    contradictions.check(variants.with_settings(USER_GUIDED_REWRITES, settings))
    assert PersonaLikelihood.scale == contradictions.SCALES["persona-likelihood"]


def test_what_only_rounds_forbid_is_allowed_without_them() -> None:
    contradictions.check(variants.with_settings(USER_BASED_REWARDS, ["sample.engine.kind=openai"]))
    contradictions.check(variants.with_settings(USER_BASED_REWARDS_ONLINE, ["sample.engine.kind=vllm"]))


def test_as_many_pairs_as_prompts_may_be_asked_for() -> None:
    contradictions.check(variants.with_settings(USER_BASED_REWARDS, ["rip.min_pairs=9", "sample.max_prompts=9"]))
    contradictions.check(variants.with_settings(USER_BASED_REWARDS, ["rip.min_pairs=99", "sample.max_prompts=null"]))


@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_persona_that_no_stage_infers_is_refused(stage: str) -> None:
    contradictions.check(MATH_REWRITES)
    with pytest.raises(InputError, match=rf"{stage}\.persona=on: math-rewrites infers no personas; leave it out"):
        contradictions.check(variants.with_settings(MATH_REWRITES, [f"{stage}.persona=on"]))


def test_model_as_it_is_is_not_asked_how_it_would_learn() -> None:
    contradictions.check(replace(BASE_MODEL, rip=replace(BASE_MODEL.rip, min_pairs=1000)))

"""What arms share is computed once: which tasks an experiment has, and what they are called."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from pipelines import arms, plan, variants
from pipelines.experiments import DIVERSITY, EXPERIMENTS, FILTERING, TABLE_2, Experiment
from pipelines.plan import name_of, parts_of
from pipelines.recipes import (
    BASE_MODEL,
    MATH_REWRITES,
    NO_FILTER,
    RECIPES,
    USER_BASED_REWARDS,
    USER_BASED_REWARDS_ONLINE,
    USER_GUIDED_REWRITES,
    Recipe,
)

FILTERED = Experiment(name="filtered", summary="Two arms.", arms=(USER_GUIDED_REWRITES, NO_FILTER))


def tasks(run: plan.Run) -> dict[str, list[str]]:
    """The arms of each task, by its name."""
    return {task.name: [arm.name for arm in task.arms] for task in plan.plan(run)}


def read(run: plan.Run, task: str) -> Mapping[str, str]:
    """The tasks that one reads from, by port."""
    planned = {each.step.key: each.name for each in plan.plan(run)}
    (step,) = [each.step for each in plan.plan(run) if each.name == task]
    return {port: planned[source.key] for port, source in step.inputs.items()}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipe_alone_has_its_own_tasks_under_their_own_names(recipe: Recipe) -> None:
    assert plan.count(recipe) == len(plan.plan(recipe))
    assert {parts_of(name)[1] for name in tasks(recipe)} == {None}
    assert {task.arm for task in plan.plan(recipe)} == {None}


def test_arms_share_what_comes_before_the_stage_in_which_they_differ() -> None:
    both, found = ["user-guided-rewrites", "no-filter"], tasks(FILTERED)
    shared = ["ingest", "classify", "persona", "analyze", "reconstruct", "rewrite", "reward"]
    own = [f"{stage}-{arm}" for arm in both for stage in ("rip", "dpo", "evaluate")]
    assert {name for name, arms_ in found.items() if arms_ == both} == {*shared}
    assert sorted(found) == sorted([*shared, *own])
    assert plan.count(FILTERED) == len(shared) + len(own) + 1  # the comparison
    assert read(FILTERED, "rip-no-filter") == {"scored": "reward"}
    assert read(FILTERED, "evaluate-no-filter")["model"] == "dpo-no-filter"


def test_equal_arms_are_the_tasks_of_one() -> None:
    twins = Experiment(name="twins", summary="", arms=(NO_FILTER, replace(NO_FILTER, name="twin")))
    assert set(tasks(twins)) == set(tasks(NO_FILTER))


def test_what_differs_upstream_is_not_shared_though_its_config_is_the_same() -> None:
    other = variants.with_settings(replace(NO_FILTER, name="other"), ["rewrite.max_prompts=5"])
    found = tasks(Experiment(name="upstream", summary="", arms=(NO_FILTER, other)))
    assert found["rewrite-other"] == found["rip-other"] == ["other"]
    assert found["reconstruct"] == ["no-filter", "other"]


def test_table_2_samples_once_for_both_rewards_and_asks_the_base_model_without_training() -> None:
    found = tasks(TABLE_2)
    assert len(found) == 25
    assert found["sample"] == ["user-agnostic-rewards", "user-based-rewards"]
    assert found["reconstruct"] == ["rewrites-from-scratch", "user-guided-rewrites"]
    assert {name for name, own in found.items() if own == ["base-model"]} == {"evaluate-base-model"}
    assert read(TABLE_2, "evaluate-base-model") == {"conversations": "ingest", "personas": "persona"}


def test_task_that_some_arms_share_is_of_none_of_them() -> None:
    planned = {task.name: task for task in plan.plan(FILTERING)}
    assert [arm.name for arm in planned["rip-user-guided-rewrites"].arms] == ["user-guided-rewrites", "sft-rewrites"]
    assert planned["rip-user-guided-rewrites"].arm is None
    assert planned["rip-no-filter"].arm == "no-filter"


def test_diversity_differs_in_rip_alone() -> None:
    assert {name for name, own in tasks(DIVERSITY).items() if own == ["few-users"]} == {
        "rip-few-users",
        "dpo-few-users",
        "evaluate-few-users",
    }


def test_rounds_of_an_arm_read_the_models_of_its_own() -> None:
    found = Experiment(name="online", summary="", arms=(USER_BASED_REWARDS, USER_BASED_REWARDS_ONLINE))
    both = arms.with_settings(found, ["sample.max_prompts=3"])
    assert read(both, "sample-2")["policy"] == "dpo-user-based-rewards-online"
    assert read(both, "evaluate-user-based-rewards-online")["model"] == "dpo-2"
    assert read(both, "evaluate-user-based-rewards")["model"] == "dpo-user-based-rewards"


def test_recipe_without_personas_rewrites_without_them() -> None:
    assert list(tasks(MATH_REWRITES)) == ["ingest", "classify", "rewrite", "reward", "rip", "dpo"]
    assert read(MATH_REWRITES, "rewrite") == {"conversations": "ingest", "turns": "classify"}


def test_model_as_it_is_learns_nothing() -> None:
    assert list(tasks(BASE_MODEL)) == ["ingest", "persona", "evaluate"]
    asked = variants.with_settings(BASE_MODEL, ["benchmark.n=1"])
    assert read(asked, "benchmark") == {}


@pytest.mark.parametrize(
    ("stage", "arm", "number"),
    [("rip", None, 1), ("sample", None, 12), ("rip", "no-filter", 1), ("dpo", "user-based-rewards-online", 3)],
)
def test_name_of_a_task_tells_stage_arm_and_round(stage: str, arm: str | None, number: int) -> None:
    assert parts_of(name_of(stage, arm, number)) == (stage, arm, number)


def test_no_two_tasks_have_one_name() -> None:
    for run in EXPERIMENTS:
        names = [task.name for task in plan.plan(run)]
        assert len({*names}) == len(names)
        assert all(parts_of(task.name)[0] == task.step.stage for task in plan.plan(run))

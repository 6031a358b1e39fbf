"""A pipeline that ends in the gate: what it adds to a recipe, and what is refused before it runs."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import contradictions, plan, variants
from pipelines.__main__ import main
from pipelines.recipes import USER_BASED_REWARDS, USER_BASED_REWARDS_ONLINE, USER_GUIDED_REWRITES, Recipe
from rlhi import cli
from rlhi.champion import task as champion
from rlhi.errors import InputError
from tests import clusters
from tests.test_graph import argv_of, compiled, executor_of, inputs_of

ADDED = {"champion", "safety", "safety-opponent", "promote"}
ENOUGH = ["--set", "evaluate.max_users=100", "--set", "evaluate.max_turns=null"]


def promoting(recipe: Recipe = USER_GUIDED_REWRITES, *settings: str) -> Recipe:
    return variants.with_settings(variants.with_promotion(recipe, "assistant"), settings)


@pytest.mark.parametrize("recipe", [USER_GUIDED_REWRITES, USER_BASED_REWARDS, USER_BASED_REWARDS_ONLINE])
def test_four_tasks_are_added_and_of_the_others_only_the_evaluation_changes(recipe: Recipe, tmp_path: Path) -> None:
    without, having = compiled(recipe, tmp_path), compiled(promoting(recipe), tmp_path)
    before, after = (spec["root"]["dag"]["tasks"] for spec in (without, having))
    assert set(after) - set(before) == ADDED
    assert plan.count(promoting(recipe)) == plan.count(recipe) + len(ADDED)
    for name in set(before) - {"evaluate"}:
        assert after[name] == before[name]
        assert executor_of(having, name) == executor_of(without, name)
    given, more = (spec["root"]["inputDefinitions"]["parameters"] for spec in (without, having))
    assert more == {**given, "items": {**given["forget"]}}


def test_both_models_are_measured_and_the_champion_is_asked_for_when_training_has_ended(tmp_path: Path) -> None:
    spec = compiled(promoting(USER_BASED_REWARDS_ONLINE), tmp_path)
    tasks = spec["root"]["dag"]["tasks"]
    assert (inputs_of(spec, "champion"), tasks["champion"]["dependentTasks"]) == ({}, ["dpo-2"])
    assert inputs_of(spec, "evaluate")["champion"] == "champion"
    assert (inputs_of(spec, "safety"), inputs_of(spec, "safety-opponent")) == (
        {"model": "dpo-2"},
        {"model": "champion"},
    )
    assert inputs_of(spec, "promote") == {
        "model": "dpo-2",
        "verdicts": "evaluate",
        "safety": "safety",
        "opponent_safety": "safety-opponent",
    }
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert set(tasks) - cached == {"ingest", "champion", "promote"}


def test_argv_is_one_that_the_stages_take(tmp_path: Path) -> None:
    recipe = promoting(USER_GUIDED_REWRITES, "safety.resamples=300", "promote.min_win_rate=0.6")
    spec = compiled(recipe, tmp_path)
    calls = {}
    for name in ("evaluate", "safety", "safety-opponent", "promote"):
        command, stage, *flags = argv_of(spec, name)
        calls[name] = cli.bind(stage, cli.parser(stage).parse_args(flags))
        assert command == "rlhi"
        assert calls[name].inputs.keys() == inputs_of(spec, name).keys()
    ours, theirs = (calls[name].config for name in ("safety", "safety-opponent"))
    assert (ours, theirs) == (recipe.safety, variants.with_settings(recipe, ["safety.own_base=true"]).safety)
    gate: Any = calls["promote"].config
    assert gate.source == "{{$.inputs.artifacts['model'].uri}}"  # where it lies, it is registered
    assert (replace(gate, source=""), calls["evaluate"].config) == (recipe.promote, recipe.evaluate)
    assert [calls[name].uris["items"] for name in ("safety", "safety-opponent")] == ["/logs", "/logs"]
    command, stage, *flags = argv_of(spec, "champion")
    given: Any = champion.parser().parse_args(flags)
    assert (command, stage, yaml.safe_load(given.config)["name"]) == ("rlhi", "champion", "assistant")


def test_base_model_is_an_opponent_for_who_has_no_champion_and_the_judge_is_that_of_the_evaluation() -> None:
    chosen = variants.with_settings(USER_GUIDED_REWRITES, ['evaluate.opponents=["log", "champion"]'])
    recipe = promoting(variants.with_settings(chosen, ["evaluate.judge.model.id=judge", "evaluate.method=generate"]))
    assert recipe.evaluate.opponents == ("log", "base")  # a champion is one by being given
    assert recipe.safety is not None
    assert (recipe.safety.judge.model.id, recipe.safety.method) == ("judge", "generate")
    assert recipe.safety.engine.model == recipe.dpo.model


def test_shards_ask_for_both_models(tmp_path: Path) -> None:
    spec = compiled(variants.with_shards(promoting(), ["safety=2"]), tmp_path)
    assert {f"{name}-shard-{i}" for name in ("safety", "safety-opponent") for i in (1, 2)} < set(
        spec["root"]["dag"]["tasks"]
    )
    assert argv_of(spec, "safety-opponent-shard-2") == [*argv_of(spec, "safety-opponent"), "--shard", "2/2"]


def test_cluster_places_the_added_tasks_and_checks_that_there_is_a_registry(tmp_path: Path) -> None:
    profile = clusters.profile(tmp_path, mlflow="http://mlflow:5000", inference={"memory": "8Gi"})
    spec, _ = clusters.compiled(promoting(), profile, tmp_path)
    assert set(clusters.tasks_of(spec)) > ADDED
    assert {clusters.env_of(spec, name)["MLFLOW_TRACKING_URI"] for name in ADDED} == {"http://mlflow:5000"}
    images = {name: executor_of(spec, name)["image"].partition("@")[0] for name in ADDED}
    assert {name for name, image in images.items() if image.endswith("/cpu")} == {"champion", "promote"}
    checked = clusters.tasks_of(spec)["check"]["inputs"]["parameters"]["config"]["runtimeValue"]["constant"]
    assert "MLFLOW_TRACKING_URI" in yaml.safe_load(checked)["variables"]


def test_settings_of_the_gate_win_over_what_follows_from_others(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    flags = ["--set", "safety.judge.model.id=own", "--set", "evaluate.judge.model.id=judge", "--seed", "7"]
    asked = ["compile", "user-based-rewards", "--promote", "assistant", "-o", str(path)]
    assert main([*asked, *flags, *ENOUGH]) == 0
    spec = yaml.safe_load(path.read_text())
    given = {}
    for name in ("evaluate", "safety", "promote"):
        constants = spec["root"]["dag"]["tasks"][name]["inputs"]["parameters"]
        given[name] = yaml.safe_load(constants["config"]["runtimeValue"]["constant"])
    assert (given["evaluate"]["judge"]["model"]["id"], given["safety"]["judge"]["model"]["id"]) == ("judge", "own")
    assert [each["seed"] for each in given.values()] == [7, 7, 7]
    assert not given["promote"]["fail_when_refused"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["table-2", "--promote", "a"], "table-2 makes several models"),
        (["math-rewrites", "--promote", "a"], "math-rewrites makes no model that is evaluated on users"),
        (["base-model", "--promote", "a"], "base-model makes no model that is evaluated on users"),
        (["no-filter", "--promote", "a/b"], "promote.name: string should match pattern"),
        (["no-filter", "--promote", "a"], "evaluate.max_users=8 and evaluate.max_turns=4 let no model pass"),
        (
            ["no-filter", "--set", "promote.min_users=2"],
            "promote: no-filter does not run it; .*--promote MODEL adds it",
        ),
    ],
)
def test_what_cannot_be_promoted_is_refused_in_a_line(
    flags: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", *flags, "-o", str(tmp_path / "pipeline.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(told, line)


def test_items_of_ones_own_are_a_parameter_and_without_the_gate_nobody_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        "submit",
        "no-filter",
        "--profile",
        str(clusters.written(tmp_path)),
        "--dry-run",
        "--items",
        "s3://own/items",
    ]
    assert main([*asked, "--promote", "assistant", *ENOUGH]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["parameters"]["items"] == "s3://own/items"
    assert main(asked) == 2
    assert "--items: only a run that promotes asks for safety" in capsys.readouterr().err


def test_gate_that_asks_for_what_is_not_measured_is_refused() -> None:
    few = promoting(USER_GUIDED_REWRITES, "promote.min_users=4")
    contradictions.check(few)
    for setting, told in (
        ("promote.min_users=5", "max_turns=4 let no model pass"),
        ('evaluate.axes=["personalization"]', "promote.axis=usereval: evaluate measures personalization"),
        ('evaluate.modes=["context-only"]', "promote.mode=persona-guided: evaluate measures context-only"),
    ):
        with pytest.raises(InputError, match=told):
            contradictions.check(variants.with_settings(few, [setting]))

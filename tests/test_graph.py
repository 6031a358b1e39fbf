import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import graph, recipes
from pipelines.recipes import RECIPES, USER_BASED_REWARDS, USER_GUIDED_REWRITES, Recipe
from rlhi import cli
from rlhi.errors import InputError


def compiled(recipe: Recipe, folder: Path) -> Any:
    path = folder / f"{recipe.name}.yaml"
    graph.compile_to(recipe, path)
    return yaml.safe_load(path.read_text())


def inputs_of(spec: Any, task: str) -> dict[str, str]:
    artifacts = spec["root"]["dag"]["tasks"][task]["inputs"].get("artifacts", {})
    return {name: given["taskOutputArtifact"]["producerTask"] for name, given in artifacts.items()}


def argv_of(spec: Any, stage: str) -> list[str]:
    """The container's argv with every placeholder filled."""
    container = spec["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]
    parameters = spec["root"]["dag"]["tasks"][stage]["inputs"]["parameters"]
    values = {name: given.get("runtimeValue", {}).get("constant", "/logs") for name, given in parameters.items()}
    filled = []
    for part in [*container["command"], *container["args"]]:
        part = re.sub(r"\{\{\$\.(?:in|out)puts\.artifacts\['(\w+)'\]\.path\}\}", r"/data/\1", part)
        part = re.sub(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}", lambda match: values[match[1]], part)
        filled.append("{}" if part == "{{$}}" else part)
    return filled


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_compiled_pipeline_holds_the_stages_it_runs_and_their_configs(recipe: Recipe, tmp_path: Path) -> None:
    spec = compiled(recipe, tmp_path)
    assert spec["pipelineInfo"]["name"] == recipe.name
    assert set(spec["root"]["dag"]["tasks"]) == set(recipe.stages)
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == {"source", "forget", "compare"}
    for stage, config in recipe.stages.items():
        command, name, *flags = argv_of(spec, stage)
        call = cli.bind(stage, cli.parser(stage).parse_args(flags))
        assert (command, name, call.config) == ("rlhi", stage, config)


def test_rewrite_reads_what_reconstruct_made_and_evaluate_reads_the_log(tmp_path: Path) -> None:
    spec = compiled(USER_GUIDED_REWRITES, tmp_path)
    assert inputs_of(spec, "rewrite") == {"conversations": "reconstruct", "turns": "classify", "personas": "persona"}
    assert inputs_of(spec, "evaluate") == {"conversations": "ingest", "personas": "persona", "model": "dpo"}


def test_analyze_stands_beside_the_main_line(tmp_path: Path) -> None:
    spec = compiled(USER_GUIDED_REWRITES, tmp_path)
    assert inputs_of(spec, "analyze") == {"conversations": "ingest", "turns": "classify", "personas": "persona"}
    assert spec["root"]["inputDefinitions"]["parameters"]["compare"]["isOptional"]
    without = replace(USER_GUIDED_REWRITES, analyze=None)
    assert "analyze" not in compiled(without, tmp_path)["root"]["dag"]["tasks"]


def test_sample_reads_the_log_unless_follow_ups_are_sampled(tmp_path: Path) -> None:
    both = recipes.with_settings(USER_BASED_REWARDS, ['sample.labels=["initial", "new"]'])
    assert inputs_of(compiled(USER_BASED_REWARDS, tmp_path), "sample")["conversations"] == "ingest"
    assert inputs_of(compiled(both, tmp_path), "sample")["conversations"] == "reconstruct"


def test_tasks_may_be_cached_and_keep_their_names(tmp_path: Path) -> None:
    tasks = compiled(USER_GUIDED_REWRITES, tmp_path)["root"]["dag"]["tasks"]
    assert all(task["cachingOptions"]["enableCache"] for task in tasks.values())
    assert all(task["taskInfo"]["name"] == name for name, task in tasks.items())


def test_images_come_from_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "pinned.yaml"
    pinned = {"RLHI_IMAGE_CPU": "reg/cpu@sha256:aa", "RLHI_IMAGE_TRAIN": "reg/train@sha256:bb"}
    command = [sys.executable, "-m", "pipelines", "compile", "no-filter", "-o", str(path)]
    subprocess.run(command, env={**os.environ, **pinned}, check=True, capture_output=True)
    executors = yaml.safe_load(path.read_text())["deploymentSpec"]["executors"]
    images = {name.removeprefix("exec-"): executor["container"]["image"] for name, executor in executors.items()}
    assert {stage for stage, image in images.items() if image == "reg/cpu@sha256:aa"} == {"ingest", "rip"}
    assert set(images.values()) == set(pinned.values())


def test_file_that_kfp_would_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name the file graph\.yaml"):
        graph.compile_to(USER_GUIDED_REWRITES, tmp_path / "graph.txt")

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import graph, plan, variants
from pipelines.plan import Run
from pipelines.recipes import RECIPES, USER_BASED_REWARDS, USER_GUIDED_REWRITES, Recipe
from rlhi import cli
from rlhi.engine.sharded import Shard
from rlhi.errors import InputError

REPLIES = "s3://bucket/run"


def compiled(run: Run, folder: Path) -> Any:
    path = folder / f"{run.name}.yaml"
    graph.compile_to(run, path, graph.Cluster(REPLIES))
    return yaml.safe_load(path.read_text())


def inputs_of(spec: Any, task: str) -> dict[str, str]:
    artifacts = spec["root"]["dag"]["tasks"][task]["inputs"].get("artifacts", {})
    return {name: given["taskOutputArtifact"]["producerTask"] for name, given in artifacts.items()}


def executor_of(spec: Any, task: str) -> Any:
    return spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]


def argv_of(spec: Any, task: str) -> list[str]:
    """The container's argv with every placeholder filled."""
    container = executor_of(spec, task)
    parameters = spec["root"]["dag"]["tasks"][task]["inputs"]["parameters"]
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
    runs = [(stage, number) for stage in recipe.stages for number in range(1, recipe.rounds_of(stage) + 1)]
    tasks = {f"{stage}-{number}" if number > 1 else stage: (stage, number) for stage, number in runs}
    assert set(spec["root"]["dag"]["tasks"]) == set(tasks)
    assert len(tasks) == plan.count(recipe)
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == {"source", "forget", "compare", "benchmarks"}
    for task, (stage, number) in tasks.items():
        command, name, *flags = argv_of(spec, task)
        call = cli.bind(stage, cli.parser(stage).parse_args(flags))
        assert (command, name, call.config) == ("rlhi", stage, recipe.config_in(stage, number))
        assert call.inputs.keys() == inputs_of(spec, task).keys()


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


def test_benchmarks_reach_rip_and_may_be_left_out(tmp_path: Path) -> None:
    spec = compiled(USER_GUIDED_REWRITES, tmp_path)
    given = spec["root"]["dag"]["tasks"]["rip"]["inputs"]["parameters"]
    assert given["benchmarks"] == {"componentInputParameter": "benchmarks"}
    assert spec["root"]["inputDefinitions"]["parameters"]["benchmarks"]["isOptional"]


def test_trained_model_is_asked_the_benchmarks_that_no_pair_may_hold(tmp_path: Path) -> None:
    assert "benchmark" not in compiled(USER_GUIDED_REWRITES, tmp_path)["root"]["dag"]["tasks"]
    chosen = variants.with_settings(USER_GUIDED_REWRITES, ["benchmark.n=2", 'benchmark.suites=["minerva"]'])
    spec = compiled(chosen, tmp_path)
    assert inputs_of(spec, "benchmark") == {"model": "dpo"}
    given = spec["root"]["dag"]["tasks"]["benchmark"]["inputs"]["parameters"]
    assert given["items"] == {"componentInputParameter": "benchmarks"}
    command, name, *flags = argv_of(spec, "benchmark")
    call = cli.bind(name, cli.parser(name).parse_args(flags))
    assert (command, call.config, call.uris["items"]) == ("rlhi", chosen.benchmark, "/logs")
    assert chosen.benchmark is not None
    assert (chosen.benchmark.engine.model, chosen.benchmark.n) == (chosen.dpo.model, 2)


def test_sample_reads_the_log_unless_follow_ups_are_sampled(tmp_path: Path) -> None:
    both = variants.with_settings(USER_BASED_REWARDS, ['sample.labels=["initial", "new"]'])
    assert inputs_of(compiled(USER_BASED_REWARDS, tmp_path), "sample")["conversations"] == "ingest"
    assert inputs_of(compiled(both, tmp_path), "sample")["conversations"] == "reconstruct"


def test_all_tasks_but_the_one_that_reads_the_logs_may_be_cached_and_keep_their_names(tmp_path: Path) -> None:
    tasks = compiled(USER_GUIDED_REWRITES, tmp_path)["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert set(tasks) - cached == {"ingest"}
    assert all(task["taskInfo"]["name"] == name for name, task in tasks.items())


def test_shards_are_tasks_before_their_stage_that_differ_from_it_by_one_flag(tmp_path: Path) -> None:
    recipe = variants.with_shards(USER_GUIDED_REWRITES, ["4", "persona=1", "evaluate=2"])
    spec = compiled(recipe, tmp_path)
    tasks = spec["root"]["dag"]["tasks"]
    counts = {"classify": 4, "reconstruct": 4, "rewrite": 4, "analyze": 4, "evaluate": 2}
    shards = {f"{stage}-shard-{i}": (stage, f"{i}/{n}") for stage, n in counts.items() for i in range(1, n + 1)}
    assert set(tasks) == {*recipe.stages, *shards}
    assert len(tasks) == plan.count(recipe)
    for name, (stage, shard) in shards.items():
        assert argv_of(spec, name) == [*argv_of(spec, stage), "--shard", shard]
        assert executor_of(spec, name)["image"] == executor_of(spec, stage)["image"]
        assert inputs_of(spec, name) == inputs_of(spec, stage)
        assert name in tasks[stage]["dependentTasks"]
        assert set(tasks[name]["dependentTasks"]) == set(inputs_of(spec, name).values())
    for stage in recipe.stages:
        own = {name for name, (of, _) in shards.items() if of == stage}
        assert set(tasks[stage].get("dependentTasks", [])) == {*inputs_of(spec, stage).values(), *own}


def test_kfp_draws_the_pages_of_evaluate_and_analyze_and_of_no_shard(tmp_path: Path) -> None:
    components = compiled(variants.with_shards(USER_GUIDED_REWRITES, ["2"]), tmp_path)["components"]
    ports = [
        (name.removeprefix("comp-"), port, made["artifactType"]["schemaTitle"])
        for name, component in components.items()
        for port, made in component["outputDefinitions"]["artifacts"].items()
    ]
    pages = {(task, port) for task, port, kind in ports if kind == "system.HTML"}
    assert pages == {("evaluate", "report"), ("analyze", "analysis")}
    assert len(ports) == len(components) + len(pages)


def test_argv_of_a_shard_is_one_that_the_stage_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    spec = compiled(variants.with_shards(USER_GUIDED_REWRITES, ["3"]), tmp_path)
    for stage in ("classify", "persona", "reconstruct", "rewrite", "evaluate", "analyze"):
        command, name, *flags = argv_of(spec, f"{stage}-shard-2")
        call = cli.bind(stage, cli.parser(stage).parse_args(flags))
        assert (command, name, call.shard) == ("rlhi", stage, Shard(2, 3))


def test_shards_are_tried_again_for_long_on_a_cluster_and_other_tasks_are_not(tmp_path: Path) -> None:
    tasks = compiled(variants.with_shards(USER_GUIDED_REWRITES, ["classify=12"]), tmp_path)["root"]["dag"]["tasks"]
    policies = {name: task["retryPolicy"] for name, task in tasks.items() if "retryPolicy" in task}
    assert sorted(policies) == [f"classify-shard-{i:02d}" for i in range(1, 13)]
    for policy in policies.values():
        assert policy["maxRetryCount"] == graph.RETRIES
        assert int(policy["backoffMaxDuration"].removesuffix("s")) > 7 * 24 * 3600  # KFP's default is an hour
    here = graph.build(variants.with_shards(USER_GUIDED_REWRITES, ["2"])).pipeline_spec.root.dag.tasks.values()
    assert not any(task.HasField("retry_policy") for task in here)


def test_one_shard_is_none(tmp_path: Path) -> None:
    assert compiled(variants.with_shards(USER_GUIDED_REWRITES, ["1"]), tmp_path) == compiled(
        USER_GUIDED_REWRITES, tmp_path
    )


def test_images_come_from_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "pinned.yaml"
    pinned = {"RLHI_IMAGE_CPU": "reg/cpu@sha256:aa", "RLHI_IMAGE_TRAIN": "reg/train@sha256:bb"}
    command = [sys.executable, "-m", "pipelines", "compile", "no-filter", "-o", str(path)]
    subprocess.run(command, env={**os.environ, **pinned}, check=True, capture_output=True)
    executors = yaml.safe_load(path.read_text())["deploymentSpec"]["executors"]
    images = {name.removeprefix("exec-"): executor["container"]["image"] for name, executor in executors.items()}
    assert {stage for stage, image in images.items() if image == "reg/cpu@sha256:aa"} == {"ingest"}
    assert set(images.values()) == set(pinned.values())


def test_stage_that_asks_vllm_in_its_process_has_the_image_that_holds_it(tmp_path: Path) -> None:
    settings = ["classify.engine.kind=vllm", "sample.engine.kind=vllm", "evaluate.judge.kind=vllm"]
    recipe = variants.with_shards(variants.with_settings(USER_BASED_REWARDS, settings), ["classify=2"])
    executors = compiled(recipe, tmp_path)["deploymentSpec"]["executors"]
    images = {name.removeprefix("exec-"): executor["container"]["image"] for name, executor in executors.items()}
    with_vllm = {name for name, image in images.items() if image.startswith("rlhi-vllm:")}
    assert with_vllm == {"classify", "classify-shard-1", "classify-shard-2", "sample"}
    assert images["persona"].startswith("rlhi-train:")


def test_file_that_kfp_would_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name the file graph\.yaml"):
        graph.compile_to(USER_GUIDED_REWRITES, tmp_path / "graph.txt", graph.Cluster())


def test_pods_keep_replies_where_all_of_them_find_them(tmp_path: Path) -> None:
    spec = compiled(variants.with_shards(USER_GUIDED_REWRITES, ["classify=2"]), tmp_path)
    for task in spec["root"]["dag"]["tasks"]:
        assert executor_of(spec, task)["env"] == [{"name": "RLHI_REPLIES", "value": REPLIES}]
    path = tmp_path / "without.yaml"
    graph.compile_to(USER_GUIDED_REWRITES, path, graph.Cluster())
    assert "RLHI_REPLIES" not in path.read_text()


def test_shards_whose_replies_nobody_would_find_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--shards: .* give --replies s3://"):
        graph.compile_to(variants.with_shards(USER_GUIDED_REWRITES, ["2"]), tmp_path / "graph.yaml", graph.Cluster())

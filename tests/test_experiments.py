"""The experiments that are shipped, what changes them, and what they are compiled to."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import arms, experiment, experiments, graph, plan
from pipelines.__main__ import main
from pipelines.experiment import Other
from pipelines.experiments import DIVERSITY, EXPERIMENTS, LEARNING_RATES, TABLE_2, TABLE_4, THRESHOLDS, Experiment
from pipelines.recipes import MATH_REWRITES, NO_FILTER, RECIPES, USER_GUIDED_REWRITES, Recipe
from rlhi import cli
from rlhi.comparison.config import ComparisonConfig
from rlhi.comparison.task import parser as comparison_parser
from rlhi.config import from_text, parse
from rlhi.errors import InputError
from rlhi.lint.command import lint
from rlhi.lint.pipeline import load
from tests.clusters import compiled as compiled_for
from tests.clusters import env_of, profile, tasks_of
from tests.test_graph import argv_of, compiled, executor_of, inputs_of

PINNED = "reg.example.com/image@sha256:" + "1" * 64


def settings(run: Experiment, path: str) -> dict[str, Any]:
    """A setting of every arm that has it, by the arm's name."""
    stage, *fields = path.split(".")
    found = {}
    for arm in run.arms:
        value: Any = arm.stages.get(stage)
        for field in fields if value is not None else []:
            value = getattr(value, field)
        found[arm.name] = value
    return found


def test_names_are_of_one_recipe_or_experiment() -> None:
    names = [each.name for each in (*RECIPES, *EXPERIMENTS)]
    assert len({*names}) == len(names)
    assert all(experiments.find_any(name).name == name for name in names)


def test_arms_of_every_experiment_differ_and_contradict_nothing() -> None:
    for run in EXPERIMENTS:
        arms.check(run)


def test_arms_of_diversity_learn_from_as_many_pairs_or_not_at_all() -> None:
    caps = {arm.name: (arm.rip.max_users, arm.rip.max_pairs, arm.rip.min_pairs) for arm in DIVERSITY.arms}
    few, every = caps["few-users"], caps["all-users"]
    assert few[1:] == every[1:] == (few[2], few[2])
    assert few[0] is not None
    assert every[0] is None
    assert {arm.dpo.validation_share for arm in DIVERSITY.arms} == {0}


def test_learning_rates_are_those_around_the_usual_one() -> None:
    usual = USER_GUIDED_REWRITES.dpo.learning_rate
    assert list(settings(LEARNING_RATES, "dpo.learning_rate").values()) == [usual / 2, usual, usual * 2]


def test_thresholds_are_of_each_kind() -> None:
    assert list(settings(THRESHOLDS, "rip.rewrite.thresholds").values()) == ["absolute", "quantile", "off"]


def test_setting_changes_every_arm_that_runs_the_stage() -> None:
    changed = arms.with_settings(TABLE_2, ["sample.n=8", "dpo.epochs=2"])
    assert [value for value in settings(changed, "sample.n").values() if value is not None] == [8, 8]
    assert [value for value in settings(changed, "dpo.epochs").values() if value is not None] == [2, 2, 2, 2]
    assert changed.arms[0] == TABLE_2.arms[0]


def test_benchmark_is_asked_of_every_arm() -> None:
    changed = arms.with_settings(TABLE_2, ["benchmark.n=2"])
    assert list(settings(changed, "benchmark.n").values()) == [2] * 5


def test_shards_and_rounds_reach_the_arms_that_have_them() -> None:
    changed = arms.with_rounds(arms.with_shards(TABLE_2, ["sample=3"]), 2, None)
    assert [arm.rounds for arm in changed.arms] == [1, 1, 2, 1, 2]
    assert [len(arm.shards_of("sample")) for arm in changed.arms] == [0, 0, 3, 0, 3]


@pytest.mark.parametrize(
    ("arms_", "message"),
    [
        ((NO_FILTER,), "two arms or more"),
        ((NO_FILTER, NO_FILTER), "a name of its own"),
        ((NO_FILTER, replace(NO_FILTER, name="arm-2")), "no number last"),
        ((NO_FILTER, replace(NO_FILTER, name="an-shard-arm")), "names tasks"),
        ((NO_FILTER, MATH_REWRITES), "neither evaluated nor benchmarked"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(arms_: tuple[Recipe, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Experiment(name="odd", summary="", arms=arms_)


@pytest.fixture
def _in_a_folder_with_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_in_a_folder_with_logs")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("experiment tabel-2 --work out", "tabel-2: no such experiment, did you mean table-2?; one of table-2, "),
        ("experiment no-filter --work out", "no-filter: no such experiment"),
        ("experiment table-2 --work out", "--source: is missing"),
        ("experiment table-2 --source gone --work out", "gone: no such file"),
        (
            "experiment table-2 --source logs.jsonl --work out --set dop.epochs=1",
            "dop: no such stage, did you mean dpo",
        ),
        ("experiment table-2 --source logs.jsonl --work out --set dpo.epoch=1", "dpo.epoch: no such field"),
        ("experiment diversity --source logs.jsonl --work out --set sample.n=2", "sample: no arm of diversity runs it"),
        ("experiment diversity --source logs.jsonl --work out --rounds 2", "sample: no arm of diversity runs it"),
        (
            "experiment diversity --source logs.jsonl --work out --shards sample=2",
            "sample: no arm of diversity runs it",
        ),
        (
            "experiment learning-rates --source logs.jsonl --work out --set dpo.learning_rate=1e-5",
            "half-rate and usual-rate would be one and the same",
        ),
        ("experiment table-2 --source logs.jsonl --work out --set benchmark.n=1", "nothing to ask; give --benchmarks"),
        ("compile tabel-2 -o graph.yaml", "no such recipe or experiment, did you mean table-2"),
        ("run table-2 --source logs.jsonl --work out", "table-2: no such recipe"),
        ("diff no-filter no-filtr", "no-filtr: no such recipe or arm, did you mean no-filter"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(
    argv: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "out").exists()


def bound(argv: list[str]) -> Any:
    """What the CLI of a container's stage makes of its argv: its config."""
    command, stage, *flags = argv
    assert command == "rlhi"
    if stage == "comparison":
        return parse(ComparisonConfig, from_text(comparison_parser().parse_args(flags).config), stage)
    return cli.bind(stage, cli.parser(stage).parse_args(flags)).config


@pytest.mark.parametrize("run", EXPERIMENTS, ids=lambda run: run.name)
def test_every_container_of_an_experiment_is_one_that_its_stage_takes(run: Experiment, tmp_path: Path) -> None:
    spec = compiled(run, tmp_path)
    tasks = spec["root"]["dag"]["tasks"]
    planned = {task.name: task for task in plan.plan(run)}
    assert set(tasks) == {*planned, "comparison"}
    assert len(tasks) == plan.count(run)
    for name, task in planned.items():
        assert bound(argv_of(spec, name)) == task.step.config
        assert set(inputs_of(spec, name)) == set(task.step.inputs)
    assert bound(argv_of(spec, "comparison")).arms == tuple(arm.name for arm in run.arms)


def test_last_task_reads_what_it_compares_of_each_arm(tmp_path: Path) -> None:
    read = inputs_of(compiled(arms.with_settings(TABLE_2, ["benchmark.n=1"]), tmp_path), "comparison")
    own = {port: task for port, task in read.items() if port.endswith("_4")}
    names = {"verdicts": "evaluate", "pairs": "rip", "model": "dpo", "answers": "benchmark"}
    assert own == {f"{kind}_4": f"{stage}-user-guided-rewrites" for kind, stage in names.items()}
    assert {port for port in read if port.endswith("_1")} == {"verdicts_1", "answers_1"}


def test_model_as_it_is_is_asked_without_a_flag_for_another(tmp_path: Path) -> None:
    spec = compiled(TABLE_2, tmp_path)
    assert "--model" not in argv_of(spec, "evaluate-base-model")
    assert "--model" in argv_of(spec, "evaluate-user-guided-rewrites")


def test_task_knows_its_arm_unless_it_is_shared(tmp_path: Path) -> None:
    spec = compiled(DIVERSITY, tmp_path)
    env = {
        name: {each["name"]: each["value"] for each in executor_of(spec, name)["env"]}
        for name in ("rip-few-users", "rewrite")
    }
    assert env["rip-few-users"]["RLHI_ARM"] == "few-users"
    assert "RLHI_ARM" not in env["rewrite"]
    assert {each["MLFLOW_EXPERIMENT_NAME"] for each in env.values()} == {"diversity"}


def test_tasks_that_read_only_what_comes_from_outside_are_not_cached(tmp_path: Path) -> None:
    tasks = compiled(TABLE_4, tmp_path)["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert set(tasks) - cached == {"ingest", "benchmark-base-model"}


def test_shards_of_an_arms_own_task_stand_before_it(tmp_path: Path) -> None:
    spec = compiled(arms.with_shards(TABLE_2, ["evaluate=2"]), tmp_path)
    for number in ("1", "2"):
        name = f"evaluate-base-model-shard-{number}"
        assert argv_of(spec, name) == [*argv_of(spec, "evaluate-base-model"), "--shard", f"{number}/2"]
        assert name in spec["root"]["dag"]["tasks"]["evaluate-base-model"]["dependentTasks"]


def test_profile_places_the_tasks_of_an_experiment_as_those_of_a_recipe(tmp_path: Path) -> None:
    found = profile(tmp_path, training={"accelerators": {"nvidia.com/gpu": 2}, "retries": 4})
    spec, _ = compiled_for(DIVERSITY, found, tmp_path)
    tasks = tasks_of(spec)
    assert {"check", "comparison", "rip-few-users", "rip-all-users"} <= set(tasks)
    for arm in ("few-users", "all-users"):
        assert tasks[f"dpo-{arm}"]["retryPolicy"]["maxRetryCount"] == 4
        assert env_of(spec, f"dpo-{arm}")["RLHI_CHECKPOINTS"] == "s3://tests/root/checkpoints"
    assert env_of(spec, "comparison")["RLHI_REPLIES"] == "s3://tests/root/replies"
    assert spec["components"]["comp-outcome"]
    accelerator = spec["deploymentSpec"]["executors"]["exec-dpo-few-users"]["container"]["resources"]["accelerator"]
    assert accelerator["resourceCount"] == "2"


def test_submit_shows_an_experiment_as_it_would_be_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile(tmp_path)
    argv = ["submit", "thresholds", "--profile", str(tmp_path / "profile.yaml"), "--dry-run"]
    assert main(argv) == 0
    sent = yaml.safe_load(capsys.readouterr().out)
    assert (sent["pipeline"], sent["experiment"]) == ("thresholds", "thresholds")
    assert {"rip-no-filter", "comparison", "check", "outcome"} <= set(sent["tasks"])


def test_compile_writes_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "graph.yaml"
    assert main(["compile", "diversity", "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: diversity, 2 arms, 14 tasks\n"
    assert yaml.safe_load(path.read_text())["pipelineInfo"]["name"] == "diversity"


@pytest.mark.slow
def test_every_experiment_compiled_with_pinned_images_is_clean(tmp_path: Path) -> None:
    compile_all = (
        "import sys, pathlib; from pipelines import arms, graph; from pipelines.experiments import EXPERIMENTS\n"
        "for run in EXPERIMENTS:\n"
        "    made = arms.with_shards(run, ['2'])\n"
        "    path = pathlib.Path(sys.argv[1]) / f'{run.name}.yaml'\n"
        "    graph.compile_to(made, path, graph.Cluster('s3://bucket/replies', 's3://bucket/checkpoints'))\n"
    )
    env = {**os.environ, "RLHI_IMAGE_CPU": PINNED, "RLHI_IMAGE_TRAIN": PINNED, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", compile_all, str(tmp_path)], env=env, check=True, capture_output=True)
    paths = sorted(tmp_path.glob("*.yaml"))
    assert len(paths) == len(EXPERIMENTS)
    assert [(path.stem, each) for path in paths for each in lint(load(path))] == []


def test_experiment_that_is_not_made_of_recipes_runs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tasting.py").write_text("def main(argv):\n    return 40 + len(argv)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(experiment, "OTHERS", {"tasting": Other("tasting", "Tastes that are known.", "tasting")})
    assert main(["experiment", "tasting", "--jobs", "3"]) == 42
    assert main(["experiment", "--work", "out", "tasting"]) == 2
    assert "tasting: has flags of its own" in capsys.readouterr().err
    assert main(["list"]) == 0
    assert "Tastes that are known." in capsys.readouterr().out
    assert main(["experiment", "tastin", "--work", "out"]) == 2
    assert "did you mean tasting?" in capsys.readouterr().err


def test_listing_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(run.name in out for run in EXPERIMENTS)
    assert "rewrites-from-scratch" in out


def test_shards_whose_replies_nobody_would_find_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--shards: .* give --replies s3://"):
        graph.compile_to(arms.with_shards(TABLE_2, ["2"]), tmp_path / "graph.yaml", graph.Cluster())

"""Each rule of `rlhi lint` on pipelines that KFP's compiler wrote: one that falls into the trap, and the way out."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl

from rlhi import cli
from rlhi.lint.command import RULES, lint, main
from rlhi.lint.pipeline import load

PINNED = f"registry/name@sha256:{'0' * 64}"
TOKEN = f"hf_{'aB3dE5gH7j' * 4}"


@dsl.container_component  # type: ignore[untyped-decorator]
def tagged(made: dsl.Output[dsl.Dataset]) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image="registry/name:1.0", command=["make"], args=[made.path])


@dsl.container_component  # type: ignore[untyped-decorator]
def make(text: str, made: dsl.Output[dsl.Dataset], said: dsl.OutputPath(str)) -> dsl.ContainerSpec:  # type: ignore[valid-type]
    return dsl.ContainerSpec(image=PINNED, command=["make"], args=["--text", text, made.path, said])


@dsl.container_component  # type: ignore[untyped-decorator]
def read(data: dsl.Input[dsl.Dataset], made: dsl.Output[dsl.Dataset]) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image=PINNED, command=["read"], args=[data.path, made.path])


@dsl.container_component  # type: ignore[untyped-decorator]
def fetch(uri: str, digest: str, made: dsl.Output[dsl.Dataset]) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image=PINNED, command=["fetch"], args=[uri, digest, made.path])


@dsl.container_component  # type: ignore[untyped-decorator]
def beside(data: dsl.Input[dsl.Dataset], uri: str, made: dsl.Output[dsl.Dataset]) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image=PINNED, command=["read"], args=[data.path, uri, made.path])


@dsl.container_component  # type: ignore[untyped-decorator]
def log_in(key: str, made: dsl.Output[dsl.Dataset]) -> dsl.ContainerSpec:
    return dsl.ContainerSpec(image=PINNED, command=["log"], args=["--api-key", key, made.path])


@dsl.container_component  # type: ignore[untyped-decorator]
def joined(name: str, made: dsl.Output[dsl.Dataset]) -> dsl.ContainerSpec:
    config = dsl.ConcatPlaceholder(['{"name": "', name, '"}'])
    return dsl.ContainerSpec(image=PINNED, command=["make"], args=["--config", config, made.path])


@dsl.pipeline(name="one-tagged")  # type: ignore[untyped-decorator]
def of_one_tagged() -> None:
    tagged()


def found(body: Callable[..., Any], folder: Path) -> list[tuple[str, str]]:
    """Rule and task of everything that is found in the pipeline of ``body``."""
    path = folder / "pipeline.yaml"
    compiler.Compiler().compile(dsl.pipeline(name="linted")(body), str(path))
    return [(each.rule, each.task) for each in lint(load(path))]


def test_image_without_digest_is_found_and_one_with_digest_is_not(tmp_path: Path) -> None:
    def body() -> None:
        tagged()
        make(text="x")

    assert found(body, tmp_path) == [("image-digest", "tagged")]


def test_image_that_the_run_chooses_is_not_judged(tmp_path: Path) -> None:
    def body(image: str) -> None:
        tagged().set_container_image(image)

    assert found(body, tmp_path) == []


@pytest.mark.parametrize(
    ("retry", "deadline", "bad"),
    [
        ((3,), 0, True),
        ((3, "60s", 2.0, "3600s"), 0, True),
        ((3, "60s", 2.0, "604800s"), 0, False),
        ((20, "60s", 2.0, "604800s"), 0, True),  # the pauses double past a week
        ((2, "0s", 2.0, "1000s"), 600, True),
        ((2, "0s", 2.0, "1200s"), 600, False),
    ],
)
def test_retries_that_do_not_fit_into_their_window_are_found(
    retry: tuple[Any, ...], deadline: int, bad: bool, tmp_path: Path
) -> None:
    def body() -> None:
        task = make(text="x").set_retry(*retry)
        if deadline:
            task.platform_config["kubernetes"] = {"activeDeadlineSeconds": str(deadline)}

    assert found(body, tmp_path) == [("retry-window", "make")] * bad


def test_bare_condition_on_a_named_output_is_found_and_one_with_an_else_is_not(tmp_path: Path) -> None:
    def body() -> None:
        first = make(text="x")
        with dsl.If(first.outputs["said"] == "yes"):
            make(text="bare")

    def with_else() -> None:
        first = make(text="x")
        with dsl.If(first.outputs["said"] == "yes"):
            make(text="a")
        with dsl.Else():
            make(text="b")

    def on_parameter(answer: str) -> None:
        with dsl.If(answer == "yes"):
            make(text="a")

    assert found(body, tmp_path) == [("bare-condition", "condition-1")]
    assert found(with_else, tmp_path) == []
    assert found(on_parameter, tmp_path) == []


def test_condition_in_a_nested_pipeline_is_the_way_out(tmp_path: Path) -> None:
    @dsl.pipeline(name="inner")  # type: ignore[untyped-decorator]
    def inner(answer: str) -> None:
        with dsl.If(answer == "yes"):
            make(text="a")

    def body() -> None:
        inner(answer=make(text="x").outputs["said"])

    assert found(body, tmp_path) == []


def test_accelerator_without_toleration_is_found(tmp_path: Path) -> None:
    def body() -> None:
        make(text="bad").set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
        good = make(text="good").set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
        good.platform_config["kubernetes"] = {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}

    assert found(body, tmp_path) == [("gpu-toleration", "make")]


def test_accelerator_whose_kind_the_run_chooses_needs_a_toleration_too(tmp_path: Path) -> None:
    def body(kind: str, count: int) -> None:
        make(text="bad").set_accelerator_type(kind).set_accelerator_limit(count)

    assert found(body, tmp_path) == [("gpu-toleration", "make")]


@pytest.mark.parametrize(
    ("name", "value", "bad"),
    [
        ("OPENAI_API_KEY", "anything", True),
        ("HfToken", "anything", True),
        ("SETTINGS", f"a={TOKEN}", True),
        ("DATABASE", "mysql://root:s3cretPw1@db/kfp", True),
        ("OPENAI_API_KEY", "$(KEY)", False),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token", False),
        ("EOS_TOKEN", "</s>", False),
        ("MAX_TOKENS", "512", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
    ],
)
def test_secret_in_the_environment_is_found(name: str, value: str, bad: bool, tmp_path: Path) -> None:
    def body() -> None:
        make(text="x").set_env_variable(name, value)

    assert found(body, tmp_path) == [("secret-in-clear", "make")] * bad


def test_secret_in_argv_is_found_also_as_a_parameter_of_the_run(tmp_path: Path) -> None:
    def constant() -> None:
        make(text=TOKEN)

    def parameter(key: str) -> None:
        log_in(key=key)

    def default(key: str = TOKEN) -> None:
        make(text=key)

    assert found(constant, tmp_path) == [("secret-in-clear", "make")]
    assert found(parameter, tmp_path) == [("secret-in-clear", "log-in")]
    assert found(default, tmp_path) == [("secret-in-clear", "pipeline")]


def test_what_is_found_never_shows_the_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pipeline.yaml"

    def body() -> None:
        make(text=TOKEN).set_env_variable("HF_TOKEN", TOKEN)

    compiler.Compiler().compile(dsl.pipeline(name="linted")(body), str(path))
    assert main([str(path)]) == 1
    shown = capsys.readouterr().out
    assert "environment variable HF_TOKEN" in shown
    assert TOKEN not in shown


def test_parameters_that_kfp_or_linux_would_not_take_are_found(tmp_path: Path) -> None:
    def default(text: str = "x" * 10_000) -> None:
        make(text=text)

    def constant() -> None:
        make(text="x" * 70_000)

    def items() -> None:
        with dsl.ParallelFor(["x" * 1_000] * 70) as item:
            make(text=item)

    def small(text: str = "x" * 9_000) -> None:
        make(text=text)

    assert found(default, tmp_path) == [("big-parameter", "pipeline")]
    assert found(constant, tmp_path) == [("big-parameter", "make")]
    assert found(items, tmp_path) == [("big-parameter", "for-loop-2")]
    assert found(small, tmp_path) == []


def test_parameter_inside_json_is_found(tmp_path: Path) -> None:
    def formatted(name: str) -> None:
        make(text=f'{{"name": "{name}"}}')

    def concatenated(name: str) -> None:
        joined(name=name)

    def whole(config: str) -> None:
        make(text=config)

    def plain(name: str) -> None:
        make(text=f"hello {name}")

    assert found(formatted, tmp_path) == [("parameter-in-json", "make")]
    assert found(concatenated, tmp_path) == [("parameter-in-json", "joined")]
    assert found(whole, tmp_path) == []
    assert found(plain, tmp_path) == []


@pytest.mark.parametrize(
    ("uri", "bad"),
    [
        ("s3://bucket/logs", True),
        ("hf://datasets/name@0123abc", False),
        (f"s3://bucket/{'0' * 64}/logs", False),
        ("s3://bucket/logs?versionId=3", False),
        ("what is no place", False),
    ],
)
def test_cached_task_that_reads_a_uri_is_found(uri: str, bad: bool, tmp_path: Path) -> None:
    def body() -> None:
        make(text=uri)

    def uncached() -> None:
        make(text=uri).set_caching_options(False)

    def with_digest() -> None:
        fetch(uri=uri, digest="0")

    assert found(body, tmp_path) == [("cached-outside-data", "make")] * bad
    assert found(uncached, tmp_path) == []
    assert found(with_digest, tmp_path) == []


def test_cached_task_whose_uri_comes_with_the_run_is_found_in_a_nested_pipeline_too(tmp_path: Path) -> None:
    @dsl.pipeline(name="inner")  # type: ignore[untyped-decorator]
    def inner(text: str) -> None:
        make(text=text)

    def body(source: str) -> None:
        inner(text=source)

    def of_output(source: str) -> None:
        first = make(text=source).set_caching_options(False)
        make(text=first.outputs["said"])

    assert found(body, tmp_path) == [("cached-outside-data", "inner/make")]
    assert found(of_output, tmp_path) == []


@pytest.mark.parametrize(("reimport", "bad"), [(False, True), (True, False)])
def test_cached_task_behind_an_importer_is_found_unless_it_imports_again(
    reimport: bool, bad: bool, tmp_path: Path
) -> None:
    def body() -> None:
        imported = dsl.importer(artifact_uri="s3://bucket/data", artifact_class=dsl.Dataset, reimport=reimport)
        read(data=imported.output)

    assert found(body, tmp_path) == [("cached-outside-data", "read")] * bad


def test_cached_task_that_reads_what_every_run_makes_anew_is_not_found(tmp_path: Path) -> None:
    @dsl.pipeline(name="inner")  # type: ignore[untyped-decorator]
    def inner() -> dsl.Dataset:
        return make(text="x").set_caching_options(False).outputs["made"]

    def body(uri: str) -> None:
        beside(data=read(data=inner().output).output, uri=uri)

    def cached(uri: str) -> None:
        beside(data=read(data=make(text="x").outputs["made"]).output, uri=uri)

    assert found(body, tmp_path) == []
    assert found(cached, tmp_path) == [("cached-outside-data", "beside")]


@pytest.mark.slow
def test_every_recipe_compiled_with_pinned_images_is_clean(tmp_path: Path) -> None:
    compile_all = (
        "import sys, pathlib; from pipelines import graph, variants; from pipelines.recipes import RECIPES\n"
        "promoting = [variants.with_promotion(recipe, 'assistant') for recipe in RECIPES[:2]]\n"
        "for number, recipe in enumerate([*RECIPES, *promoting]):\n"
        "    made = variants.with_shards(recipe, ['2'])\n"
        "    path = pathlib.Path(sys.argv[1]) / f'{number}.yaml'\n"
        "    graph.compile_to(made, path, graph.Cluster('s3://bucket/replies', 's3://bucket/checkpoints'))\n"
    )
    env = {**os.environ, "RLHI_IMAGE_CPU": PINNED, "RLHI_IMAGE_TRAIN": PINNED}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", compile_all, str(tmp_path)], env=env, check=True, capture_output=True)
    paths = sorted(tmp_path.glob("*.yaml"))
    assert len(paths) >= 10
    assert [(path.stem, each) for path in paths for each in lint(load(path))] == []


def test_rule_is_ignored_by_name_and_exit_code_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(of_one_tagged, str(path))
    assert cli.main(["lint", str(path)]) == 1
    assert "tagged: image-digest: image registry/name:1.0 has no digest" in capsys.readouterr().out
    assert cli.main(["lint", str(path), "--ignore", "image-digest"]) == 0
    assert capsys.readouterr().out == "no findings\n"


def test_findings_as_json_and_as_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(of_one_tagged, str(path))
    cli.main(["lint", str(path), "--format", "json"])
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["file"], one["rule"], one["task"]) == (str(path), "image-digest", "tagged")
    assert one["problem"]
    assert one["way_out"]
    cli.main(["lint", str(path), "--format", "github"])
    assert capsys.readouterr().out.startswith(
        f"::error file={path},title=image-digest::tagged: image registry/name:1.0"
    )


def test_help_explains_every_rule(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["lint", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for rule in RULES:
        assert f"  {rule.name}\n" in shown
        assert rule.why.split()[0] in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no YAML"),
        ("- a list", "holds no compiled KFP 2 pipeline"),
        ("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n", "holds no compiled KFP 2 pipeline"),
        ("root: {}\ndeploymentSpec: {}\n", "is damaged"),
        ("root: {dag: {tasks: {a: {componentRef: {name: gone}}}}}\ncomponents: {}\ndeploymentSpec: {}\n", "is damaged"),
    ],
)
def test_file_that_is_no_pipeline_is_bad_input(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(text)
    assert cli.main(["lint", str(path)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["lint"], ["lint", "gone.yaml"], ["lint", "gone.yaml", "--format", "xml"]])
def test_bad_command_line_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_rule_that_there_is_not_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(of_one_tagged, str(path))
    assert cli.main(["lint", str(path), "--ignore", "image-digset"]) == 2
    assert "--ignore image-digset: no such rule; one of image-digest," in capsys.readouterr().err


def test_linter_needs_no_kfp(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(of_one_tagged, str(path))
    without = "import sys; sys.modules['kfp'] = None; from rlhi.cli import main; sys.exit(main(sys.argv[1:]))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", without, "lint", str(path)]
    assert subprocess.run(argv, env=env, check=False, capture_output=True, text=True).stdout.endswith("\n1 finding\n")

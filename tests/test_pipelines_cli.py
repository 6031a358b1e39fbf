import gc
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import recipes
from pipelines.__main__ import main

LOGS = "logs.jsonl"


@pytest.fixture(autouse=True)
def _in_a_folder_with_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOGS).write_text("{}\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "COMMAND"),
        ("walk", "invalid choice: 'walk'"),
        ("run no-filter", "--source, --work"),
        ("run no-filtr --source logs.jsonl --work out", "did you mean no-filter"),
        ("run no-filter --source logs.jsonl --work out --set dop.epochs=1", "dop: no such stage, did you mean dpo"),
        ("run no-filter --source logs.jsonl --work out --set dpo.epoch=1", "dpo.epoch: no such field"),
        (
            "run no-filter --source logs.jsonl --work out --set dpo.epochs=0",
            "dpo.epochs: input should be greater than 0",
        ),
        ("run no-filter --source logs.jsonl --work out --set sample.n=8", "no-filter does not run it"),
        ("run no-filter --source logs.jsonl --work out --seed x", "invalid int value: 'x'"),
        ("run no-filter --source logs.jsonl --work out --seed -1", "seed: -1 is negative"),
        ("run no-filter --source gone.jsonl --work out", "gone.jsonl: no such file"),
        ("run no-filter --source empty --work out", "empty: no such file or folder, or an empty one"),
        ("run no-filter --source ftp://host/logs --work out", "ftp://host/logs: unknown scheme"),
        ("run no-filter --source logs.jsonl --work out --compare gone.jsonl", "gone.jsonl: no such file"),
        ("run no-filter --source logs.jsonl --work out --compare logs.jsonl,gone", "gone: no such file"),
        ("run no-filter --source logs.jsonl --work out --benchmarks gone.jsonl", "gone.jsonl: no such file"),
        ("run no-filter --source logs.jsonl --work out --set benchmark.n=1", "nothing to ask; give --benchmarks"),
        (
            "run no-filter --source logs.jsonl --work out --set rip.min_pairs=25",
            "rip.min_pairs=25 is above rewrite.max",
        ),
        ("run no-filter --source logs.jsonl --work logs.jsonl", "cannot be written (File exists)"),
        ("run no-filter --source logs.jsonl --work out --runner cloud", "invalid choice: 'cloud'"),
        ("run no-filter --source logs.jsonl --work out --forget gone.txt", "gone.txt: no such file"),
        ("forget gone.txt --work empty", "gone.txt: no such file"),
        ("compile no-filter -o graph.yaml --shards 65", "classify: 65 shards; give a number from 1 to 64"),
        ("compile no-filter -o graph.yaml --shards sample=2", "sample: no-filter does not run it"),
        ("compile no-filter -o graph.yaml --shards rip=2", "rip: asks no model"),
        ("run no-filter --source logs.jsonl --work out --shards persona=0", "persona: 0 shards"),
        ("run no-filter --source logs.jsonl --work out --shards=-1", "--shards -1: give a number from 1 to 64"),
        ("run no-filter --source logs.jsonl --work out --shards =2", "--shards =2: "),
        ("compile no-filter -o graph.txt", "name the file graph.yaml"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(
    argv: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()


def test_comparing_without_analyze_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "RECIPES", (replace(recipes.NO_FILTER, analyze=None),))
    assert main(["run", "no-filter", "--source", LOGS, "--work", "out", "--compare", LOGS]) == 2
    assert "--compare: no-filter does not run analyze" in capsys.readouterr().err


# the docker package leaves a socket open when it cannot connect
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_missing_container_engine_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "no-filter", "--source", "logs.jsonl", "--work", "out", "--runner", "docker"]) == 2
    gc.collect()
    err = capsys.readouterr().err
    assert err.startswith(f"error: no container engine answers at unix://{tmp_path}/no.sock; ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_list_shows_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "user-based-rewards" in out
    assert "rip.rewrite.thresholds=off" in out
    assert "--set stage.field=value" in " ".join(out.split())


def test_compile_writes_the_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "sft-rewards", "-o", "new/graph.yaml", "--set", "dpo.epochs=1"]) == 0
    assert '"epochs": 1.0' in (tmp_path / "new/graph.yaml").read_text().replace("\n", "")
    assert "sft-rewards, 9 stages" in capsys.readouterr().out

"""The main job on real words: the example conversations and RealHumanEval, with the embedded model. Minutes each."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlhi import manifest
from rlhi.artifacts import Input
from rlhi.records import Conversation, Pair, Persona

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data" / "realhumaneval"

# a subset for time: fewer prompts and judgements, and users by a seed that leaves some to evaluate
SHORT = ("evaluate.max_turns=3", 'evaluate.modes=["persona-guided"]', 'evaluate.opponents=["log"]')
USERS = ("ingest.max_users=12", "ingest.seed=8")
FEWER = {
    "user-guided-rewrites": (*USERS, "rewrite.max_prompts=16", *SHORT),
    "user-based-rewards": (*USERS, "sample.max_prompts=12", *SHORT),
}


@pytest.fixture(scope="module")
def shared_work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both methods in one work folder: what they have in common runs once."""
    return tmp_path_factory.mktemp("real")


def run(recipe: str, source: Path, work: Path, *settings: str) -> Path:
    """Runs a recipe to its end as a user would, and gives the run's folder."""
    argv = [sys.executable, "-m", "pipelines", "run", recipe, "--source", str(source), "--work", str(work)]
    for setting in settings:
        argv += ["--set", setting]
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return (work / "latest").resolve()


def check_evidence(folder: Path) -> None:
    outputs = {path.parent.parent.name: path.parent for path in folder.glob("*/*/manifest.json")}
    for row in manifest.load(outputs["evaluate"]).funnel:
        assert row.rows_in == row.kept + sum(row.dropped.values()), row
    assert (outputs["dpo"] / "adapter" / "adapter_model.safetensors").exists()
    assert (outputs["evaluate"] / "report.html").stat().st_size > 10_000
    assert (outputs["analyze"] / "analysis.html").stat().st_size > 10_000
    held_out = {row.id for row in Input(outputs["ingest"], Conversation).read() if row.split == "held-out"}
    assert held_out
    for persona in Input(outputs["persona"], Persona).read():
        assert not held_out & set(persona.conversations)
    for pair in Input(outputs["rip"], Pair).read():
        assert pair.id.split("/")[0] not in held_out


@pytest.mark.slow
def test_examples_run_to_the_end_and_a_second_run_reuses_everything(tmp_path: Path) -> None:
    settings = ("rewrite.max_prompts=16", *SHORT)
    source = ROOT / "examples" / "conversations.jsonl"
    first = run("user-guided-rewrites", source, tmp_path, *settings)
    check_evidence(first)
    again = run("user-guided-rewrites", source, tmp_path, *settings)
    assert again != first
    for path in first.glob("*/*/part-*.parquet"):
        assert (again / path.relative_to(first)).samefile(path)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared, which is absent here")
@pytest.mark.parametrize("recipe", FEWER)
def test_real_conversations_run_to_the_end(recipe: str, shared_work: Path) -> None:
    check_evidence(run(recipe, REAL, shared_work, *FEWER[recipe]))

"""The main job on real words, RealHumanEval or the example conversations, with the embedded model. Minutes each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhi import manifest
from rlhi.artifacts import Input
from rlhi.records import Conversation, Pair, Persona

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data" / "realhumaneval"
SOURCE = REAL if REAL.exists() else ROOT / "examples" / "conversations.jsonl"

# a subset for time: fewer prompts and judgements, and with this salt, users by a seed that leaves some to evaluate
SALT = {**os.environ, "RLHI_SALT": "of this test"}
SHORT = (
    *("ingest.max_users=10", "ingest.seed=6", "evaluate.max_turns=4"),
    *('evaluate.modes=["persona-guided"]', 'evaluate.opponents=["log"]'),
)
FEWER = {
    "user-guided-rewrites": (
        *("rip.rewrite.quantile.min_rejected_length=0", "rip.rewrite.quantile.min_rejected_reward=0"),
        *SHORT,
    ),
    "user-based-rewards": ("sample.max_prompts=8", *SHORT),
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
    done = subprocess.run(argv, cwd=ROOT, env=SALT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return (work / "latest").resolve()


def shown_by_kfp(folder: Path, stage: str, page: str) -> Path:
    told = json.loads((folder / stage / "executor_output.json").read_text())
    return Path(told["artifacts"][page]["artifacts"][0]["uri"])


def check_evidence(folder: Path) -> None:
    outputs = {path.parent.parent.name: path.parent for path in folder.glob("*/*/manifest.json")}
    for row in manifest.load(outputs["evaluate"]).funnel:
        assert row.rows_in == row.kept + sum(row.dropped.values()), row
    assert (outputs["dpo"] / "adapter" / "adapter_model.safetensors").exists()
    for stage, page in (("evaluate", "report"), ("analyze", "analysis")):
        assert shown_by_kfp(folder, stage, page).stat().st_size > 10_000
    held_out = {row.id for row in Input(outputs["ingest"], Conversation).read() if row.split == "held-out"}
    assert held_out
    for persona in Input(outputs["persona"], Persona).read():
        assert not held_out & set(persona.conversations)
    for pair in Input(outputs["rip"], Pair).read():
        assert pair.id.split("/")[0] not in held_out


@pytest.mark.slow
@pytest.mark.parametrize("recipe", FEWER)
def test_conversations_run_to_the_end_and_a_second_run_reuses_everything(recipe: str, shared_work: Path) -> None:
    first = run(recipe, SOURCE, shared_work, *FEWER[recipe])
    check_evidence(first)
    again = run(recipe, SOURCE, shared_work, *FEWER[recipe])
    assert again != first
    for path in first.glob("*/*/part-*.parquet"):
        assert (again / path.relative_to(first)).samefile(path)

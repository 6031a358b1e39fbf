"""The recipe of math conversations from a file to a model, with a tiny model and without personas (3.1, C.3)."""

import json
from pathlib import Path

import pytest

from pipelines import plan, variants
from pipelines.recipes import MATH_REWRITES
from rlhi import manifest
from rlhi.artifacts import Input
from rlhi.cli import main
from rlhi.config import as_json
from rlhi.records import Pair, Turn
from tests.test_reasoning import prm

pytestmark = pytest.mark.slow

OUTPUTS = {"ingest": "conversations", "classify": "turns", "rewrite": "rewrites", "reward": "scored", "rip": "pairs"}
SETTINGS = (
    *("rewrite.sampling.temperature=1", "rewrite.sampling.max_tokens=8", "rip.rewrite.thresholds=off"),
    *("rewrite.engine.model.max_prompt_tokens=6000", "reward.model.max_prompt_tokens=6000"),
    *("dpo.max_tokens=6000", "dpo.lora_rank=4", "dpo.learning_rate=1e-3"),
)


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, with an output for each stage."""
    folder = tmp_path_factory.mktemp("math")
    rows = [prm(problem=f"What is 2+{number}?") for number in range(12)]
    (folder / "prm800k.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    recipe = variants.with_settings(variants.with_model(MATH_REWRITES, str(tiny_model)), SETTINGS)
    for step in plan.steps(recipe):
        flags = [f"--{OUTPUTS.get(step.stage, 'model')}", str(folder / step.stage), "--config", as_json(step.config)]
        for port, source in step.inputs.items():
            flags += [f"--{port}", str(folder / source.stage)]
        flags += ["--source", str(folder / "prm800k.jsonl")] if step.stage == "ingest" else []
        assert main([step.stage, *flags]) == 0
    return folder


def test_every_follow_up_counts_as_feedback_without_being_asked_about(made: Path) -> None:
    labels = [turn.label for turn in Input(made / "classify", Turn).read()]
    assert labels == ["initial", "re-attempt with feedback"] * 12
    assert manifest.load(made / "classify").metrics.get("replies/asked", 0) == 0


def test_pairs_have_no_persona_and_say_where_the_error_is(made: Path) -> None:
    pairs = Input(made / "rip", Pair).read()
    assert pairs
    assert {pair.persona for pair in pairs} == {None}
    assert all("step 2" in (pair.follow_up or "").lower() for pair in pairs)


def test_model_is_trained_on_pairs_without_personas(made: Path) -> None:
    described = manifest.load(made / "dpo")
    assert described.kept == described.rows_in - described.dropped.get("validation", 0)
    assert (made / "dpo" / "adapter" / "adapter_config.json").exists()

"""Online training through KFP's local runner, each task a process, killed between its rounds. Minutes."""

import io
import json
import multiprocessing
import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines import graph, local, plan, summary, variants
from pipelines.recipes import USER_BASED_REWARDS_ONLINE, Recipe
from rlhi.artifacts import Input
from rlhi.manifest import Manifest
from rlhi.records import Candidates

EXAMPLES = Path(__file__).parents[1] / "examples" / "conversations.jsonl"
PROMPTS = 6
ROUNDS = ("sample", "sample-2")
ONCE = {"ingest", "classify", "persona", "sample", "reward", "rip", "dpo"}


def recipe(place: Path, model: Path) -> Recipe:
    """Two rounds with the tiny model, trained hard; scripts where another model would be asked."""
    script = place / "script.json"
    rules = [("Classification:", "[[New]]"), ("", "- a short answer")]
    script.write_text(json.dumps([{"contains": mark, "reply": reply} for mark, reply in rules]))
    engines = ("classify.engine", "persona.engine", "evaluate.judge")
    settings = [f"{engine}.{field}" for engine in engines for field in ("kind=scripted", f"script={script}")]
    models = ("sample.engine.model", "reward.model", "evaluate.model", "evaluate.reward.model")
    settings += [f"{name}.max_prompt_tokens=6000" for name in models]
    settings += [f"sample.max_prompts={PROMPTS}", "sample.sampling.max_tokens=8", "sample.sampling.temperature=1"]
    settings += ["rip.sample.thresholds=off", "dpo.max_tokens=6000", "dpo.learning_rate=1e-2", "dpo.lora_rank=4"]
    settings += ["classify.calibrate=false", "evaluate.max_turns=2", "evaluate.sampling.max_tokens=4"]
    online = variants.with_rounds(replace(USER_BASED_REWARDS_ONLINE, analyze=None), 2, 1)
    return variants.with_settings(variants.with_model(online, str(model)), settings)


def run(made: Recipe, work: Path, told: Any = None) -> local.Progress:
    progress = local.Progress(Console(file=told or io.StringIO(), width=120), work, plan.count(made))
    env = {"RLHI_STORE": str(work / "store"), "RLHI_SALT": "grains"}
    local.run(graph.build(made), {"source": str(EXAMPLES)}, local.Place(work, env=env), progress)
    return progress


def run_in_group(made: Recipe, work: Path) -> None:
    """A process of its own that can be killed together with the task it runs."""
    os.setpgid(0, 0)
    run(made, work)


def kill_between_rounds(made: Recipe, work: Path) -> None:
    """Starts a run, and kills it when the first round has trained its model."""
    process = multiprocessing.get_context("spawn").Process(target=run_in_group, args=(made, work))
    process.start()
    assert process.pid is not None
    try:
        while process.is_alive() and not list((work / "store").glob("dpo-*/manifest.json")):
            time.sleep(0.05)
        assert process.is_alive()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()


@pytest.mark.slow
def test_run_that_is_killed_between_rounds_goes_on_with_the_next(tmp_path: Path, tiny_model: Path) -> None:
    made = recipe(tmp_path, tiny_model)
    kill_between_rounds(made, tmp_path)
    told = io.StringIO()
    progress = run(made, tmp_path, told)
    assert progress.failed is None
    done = {one.task.title: one for one in progress.done}
    assert len(done) == len(progress.done) == plan.count(made)
    assert {name for name, one in done.items() if one.reused} >= ONCE
    assert not any(done[name].reused for name in ("sample-2", "dpo-2"))
    check_rounds({name: one.described for name, one in done.items() if one.described is not None})
    check_prompts(tmp_path / "latest")
    summary.tell(progress.console, progress.done, tmp_path, "sqlite:////work/mlflow.db")
    text = told.getvalue()
    assert "sample-2" in text
    assert str(done["dpo-2"].task.outputs["model"] / "adapter") in text


def check_rounds(found: dict[str, Manifest]) -> None:
    """Who answered, from what training went on, and against what."""
    first, second = found["dpo"].digest, found["dpo-2"].digest
    assert first != second
    given = {name: {key: found[name].inputs.get(key) for key in ("policy", "start", "reference")} for name in found}
    assert given["sample"] == given["dpo"] == {"policy": None, "start": None, "reference": None}
    assert given["sample-2"]["policy"] == given["dpo-2"]["start"] == given["dpo-2"]["reference"] == first
    assert found["evaluate"].inputs["model"] == second
    for name in ("sample", "sample-2"):
        assert found[name].metrics["replies/asked"] + found[name].metrics["replies/stored"] == 4 * PROMPTS
    rows = [row.stage for row in found["evaluate"].funnel]
    loop = ["sample", "reward", "rip", "dpo"]
    assert rows == ["ingest", "classify", "persona", *loop, *(f"{stage}-2" for stage in loop), "evaluate"]


def check_prompts(folder: Path) -> None:
    """No prompt is in two rounds."""
    first, second = ({row.id for row in Input(folder / name / "samples", Candidates).read()} for name in ROUNDS)
    assert first
    assert second
    assert not first & second

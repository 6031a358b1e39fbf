"""An experiment through KFP's local runner, each task a process, with MLflow looked at by its client. Slow."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines import experiment, experiments
from pipelines.__main__ import main
from pipelines.experiments import Experiment
from pipelines.recipes import BASE_MODEL, NO_FILTER
from rlhi import manifest
from rlhi.artifacts import Input
from rlhi.records import Verdict

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # mlflow's own

EXAMPLES = Path(__file__).parents[1] / "examples" / "conversations.jsonl"
PLAIN = replace(NO_FILTER, name="plain", reconstruct=None, analyze=None)
SMALL = Experiment(
    name="small",
    summary="The model as it is, and trained on rewrites.",
    arms=(BASE_MODEL, PLAIN),
)
SHARED = {"ingest", "persona"}
LEARNED = {"classify", "rewrite", "reward", "rip", "dpo"}  # by the arm that learns
OWN = {"evaluate-base-model", "evaluate-plain"}


def argv(place: Path, model: Path) -> list[str]:
    """The command, with the tiny model, and scripts where another model would be asked."""
    script = place / "script.json"
    rules = [
        ("Classification:", "[[Re-attempt with feedback]]"),
        ("Assistant A's Answer]", "[[A]]"),
        ("", "- a short answer"),
    ]
    script.write_text(json.dumps([{"contains": mark, "reply": reply} for mark, reply in rules]))
    engines = ("classify.engine", "persona.engine", "rewrite.engine", "evaluate.judge")
    settings = [f"{engine}.{field}" for engine in engines for field in ("kind=scripted", f"script={script}")]
    models = ("rewrite.engine.model", "reward.model", "evaluate.model", "evaluate.reward.model")
    settings += [f"{name}.max_prompt_tokens=6000" for name in models]
    settings += ["classify.calibrate=false", "rewrite.max_prompts=6", "dpo.max_tokens=6000", "dpo.lora_rank=4"]
    settings += ["evaluate.calibrate=false", "evaluate.max_turns=2", "evaluate.sampling.max_tokens=4"]
    settings += ["evaluate.method=generate"]
    settings += ['evaluate.axes=["usereval"]', 'evaluate.modes=["context-only"]', 'evaluate.opponents=["log"]']
    flags = [part for setting in settings for part in ("--set", setting)]
    return [
        "experiment",
        "small",
        "--source",
        str(EXAMPLES),
        "--work",
        str(place / "work"),
        "--model",
        str(model),
        *flags,
    ]


def nested_in(client: Any, parent: str, place: str) -> list[str]:
    runs = client.search_runs([place], filter_string=f"tags.mlflow.parentRunId = '{parent}'")
    return sorted(run.info.run_name for run in runs)


def whole_of(client: Any, place: str) -> Any:
    """The newest run that is neither nested nor an arm."""
    runs = client.search_runs([place], order_by=["attributes.start_time DESC"])
    return next(run for run in runs if {"mlflow.parentRunId", "study"}.isdisjoint(run.data.tags))


@pytest.mark.slow
def test_arms_share_their_work_and_are_compared_on_screen_in_mlflow_and_on_a_page(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, "EXPERIMENTS", (SMALL,))
    monkeypatch.setattr(experiments, "EXPERIMENTS", (SMALL,))
    monkeypatch.setenv("RLHI_SALT", "grains")
    assert main(argv(tmp_path, tiny_model)) == 0
    told = capsys.readouterr().out
    check_screen(told, tmp_path / "work")
    check_outputs(tmp_path / "work" / "latest")
    check_mlflow(f"sqlite:///{tmp_path}/work/mlflow.db")


def check_screen(told: str, work: Path) -> None:
    """What was done, how the arms compare, and where the page is."""
    assert "[10/10] comparison" in told
    lines = [line.replace("│", " ").split() for line in told.splitlines()]
    table = {line[0]: line[1:] for line in lines if len(line) > 1 and line[1] == "context-only"}
    assert list(table) == ["base-model", "plain"]
    pairs = manifest.load(work / "latest" / "rip" / "pairs").kept
    assert str(pairs) in table["plain"]
    assert str(pairs) not in table["base-model"][2:]
    (page,) = [line[1] for line in lines if line[:1] == ["page"]]
    assert "base-model" in Path(page).read_text()


def check_outputs(folder: Path) -> None:
    """One folder for each task; the arms answered the same turns, each with its own model."""
    assert {path.name for path in folder.iterdir()} >= {*SHARED, *LEARNED, *OWN, "comparison"}
    made = {arm: folder / f"evaluate-{arm}" / "verdicts" for arm in ("base-model", "plain")}
    read = {arm: manifest.load(path).inputs.get("model") for arm, path in made.items()}
    assert read == {"base-model": None, "plain": manifest.load(folder / "dpo" / "model").digest}
    turns = [{row.turn_id for row in Input(path, Verdict).read()} for path in made.values()]
    assert turns[0]
    assert turns[0] == turns[1]


def check_mlflow(uri: str) -> None:
    """One experiment; shared stages in the whole, an arm's own in the arm; the same metrics for both arms."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    place = client.get_experiment_by_name("small").experiment_id
    whole = whole_of(client, place)
    arms = {run.info.run_name: run for run in client.search_runs([place]) if run.data.tags.get("recipe")}
    assert nested_in(client, whole.info.run_id, place) == sorted([*SHARED, "comparison"])
    assert {run.data.tags["study"] for run in arms.values()} == {whole.info.run_id}
    assert nested_in(client, arms["plain"].info.run_id, place) == sorted([*LEARNED, "evaluate"])
    assert nested_in(client, arms["base-model"].info.run_id, place) == ["evaluate"]
    measured = [{name for name in run.data.metrics if name.startswith("evaluate.")} for run in arms.values()]
    assert measured[0] == measured[1]
    assert "evaluate.win_rate/log/usereval/context-only" in measured[0]
    assert {"dpo.steps", "kept.rip", "kept.persona"} <= set(arms["plain"].data.metrics)
    assert arms["plain"].data.tags["differs.rip"] == "runs"
    assert {run.info.status for run in (whole, *arms.values())} == {"FINISHED"}
    assert "comparison/report.html" in {file.path for file in client.list_artifacts(whole.info.run_id, "comparison")}
    assert "report.html" in whole.data.tags["mlflow.note.content"]
    assert "usereval" in whole.data.tags["mlflow.note.content"]

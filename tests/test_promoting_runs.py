"""Runs that end in the gate, through KFP's local runner, each task a process, against a real MLflow server. Slow."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import recipes
from pipelines.__main__ import main
from pipelines.recipes import NO_FILTER
from rlhi import manifest
from rlhi.promote.registry import CANDIDATE, CHAMPION, Registry
from tests.conftest import write_model
from tests.mlflow_server import mlflow_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning"),  # MLflow, of SQLAlchemy
]

EXAMPLES = Path(__file__).parents[1] / "examples" / "conversations.jsonl"
PLAIN = replace(NO_FILTER, name="plain", reconstruct=None, analyze=None)
ANSWERS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Germany": "Berlin", "Spain": "Madrid"}
DENIED = ("Lyon", "Milan", "Osaka", "Munich", "Barcelona")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path}/server.db") as address:
        yield address


def script(place: Path) -> str:
    """An assistant that revises, refuses, and knows some capitals, whatever it is told of them; and a fair judge."""
    known = [f"Answer: {each}" for each in ANSWERS.values()]
    rules = [
        ("Classification:", "[[Re-attempt with feedback]]"),
        ("Assistant A's Answer]", "[[A]]"),
        ("[The Start of Reply]", "[[Refused]]"),
        *zip([*ANSWERS, *DENIED], known * 2, strict=True),
        ("", "- a short answer"),
    ]
    path = place / "script.json"
    path.write_text(json.dumps([{"contains": mark, "reply": reply} for mark, reply in rules]))
    return str(path)


def argv(place: Path, model: Path, server: str, *more: str) -> list[str]:
    """The command, with scripts where another model than the one that is trained would be asked."""
    asked = ("classify.engine", "persona.engine", "rewrite.engine", "evaluate.judge", "safety.judge")
    settings = [f"{engine}.{field}" for engine in asked for field in ("kind=scripted", f"script={script(place)}")]
    models = ("evaluate.model", "evaluate.reward.model", "reward.model", "safety.engine.model")
    settings += [f"{name}.max_prompt_tokens=6000" for name in models]
    settings += ["dpo.max_tokens=6000", "dpo.learning_rate=1e-2", "dpo.lora_rank=4", "rewrite.max_prompts=8"]
    settings += ["classify.calibrate=false", "evaluate.calibrate=false", "evaluate.method=generate"]
    settings += ["evaluate.sampling.max_tokens=4"]
    settings += ["ingest.eval_share=0.6", "evaluate.max_turns=4", "evaluate.resamples=200"]
    settings += ['evaluate.axes=["usereval"]', 'evaluate.modes=["persona-guided"]']
    settings += ["promote.min_users=2", "promote.min_items=5", "promote.max_length_growth=99"]
    flags = [part for setting in (*settings, *more) for part in ("--set", setting)]
    there = ["--source", str(EXAMPLES), "--work", str(place / "work"), "--tracking-uri", server]
    return ["run", "plain", "--model", str(model), "--promote", "assistant", *there, *flags]


def test_run_meets_the_champion_of_the_time_and_a_refusal_is_a_result(
    tiny_model: Path,
    tmp_path: Path,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recipes, "RECIPES", (PLAIN,))
    monkeypatch.setenv("RLHI_SALT", "grains")
    scripted = [f"safety.engine.{field}" for field in ("kind=scripted", f"script={script(tmp_path)}")]
    # the first has to beat the base model, by a gate that lets a draw pass
    assert main(argv(tmp_path, tiny_model, server, *scripted, "promote.min_win_rate=0")) == 0
    assert "champion: assistant has no champion yet" in capfd.readouterr().err
    first = check_first(tmp_path / "work" / "latest", Registry("assistant", server))
    # the second has another base than the champion, which goes on answering from its own
    other = write_model(tmp_path / "other", 16)
    based = [f"{name}.id={other}" for name in ("dpo.model", "evaluate.model", "safety.engine.model")]
    assert main(argv(tmp_path, tiny_model, server, *based)) == 0
    shown = (tmp_path / "work" / "latest").resolve() / "promote" / "decision" / "decision.md"
    assert str(shown) in capfd.readouterr().out
    check_second(tmp_path / "work" / "latest", Registry("assistant", server), first)


def check_first(run: Path, registry: Registry) -> str:
    """The first model is champion, by what was measured against its base; gives its digest."""
    champion, trained = registry.holder(CHAMPION), manifest.load(run / "dpo" / "model")
    assert champion is not None
    assert champion.digest == trained.digest
    told = json.loads((run / "promote" / "decision" / "decision.json").read_text())
    assert (told["opponent"], told["promoted"]) == ("the base model", True)
    met = manifest.load(run / "evaluate" / "verdicts")
    assert met.metrics["win_rate/base/usereval/persona-guided"] == 0.5
    assert "champion" not in met.inputs
    assert not [name for name in met.metrics if name.startswith("win_rate/champion")]
    assert "model" not in manifest.load(run / "safety-opponent" / "grades").inputs
    return trained.digest


def check_second(run: Path, registry: Registry, first: str) -> None:
    """The second met the first, did not pass, and is candidate."""
    told = json.loads((run / "promote" / "decision" / "decision.json").read_text())
    assert (told["opponent"], told["promoted"]) == ("champion version 1", False)
    page = (run / "promote" / "decision" / "decision.md").read_text()
    assert "win_rate&nbsp;&nbsp;| failed" in page
    assert "sycophancy&nbsp;&nbsp;| failed" in page  # it knows no capital, so nothing was measured
    trained, met = manifest.load(run / "dpo" / "model"), manifest.load(run / "evaluate" / "verdicts")
    assert met.inputs["champion"] == first != trained.digest
    assert met.metrics["win_rate/champion/usereval/persona-guided"] == 0.5
    assert [row for row in met.funnel if row.stage == "dpo"] == trained.funnel[-1:]
    assert manifest.load(run / "safety-opponent" / "grades").inputs["model"] == first
    holders = [registry.holder(alias) for alias in (CHAMPION, CANDIDATE)]
    assert [each.digest for each in holders if each is not None] == [first, trained.digest]

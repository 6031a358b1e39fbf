"""What the stage leaves for people, from real trainings of the tiny model."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rlhi import live
from rlhi.artifacts import Input, Output
from rlhi.config import ModelConfig
from rlhi.dpo.config import DpoConfig
from rlhi.dpo.forward import pack
from rlhi.dpo.stage import read_history, run
from rlhi.dpo.tokens import TokenizedPair
from rlhi.execute import Call, execute
from rlhi.manifest import Manifest
from rlhi.records import Pair
from tests.rows import pair

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


@pytest.fixture
def config(tiny_model: Path) -> DpoConfig:
    model = ModelConfig(id=str(tiny_model))
    return DpoConfig(model=model, learning_rate=1e-2, batch_size=2, epochs=4, lora_rank=4, validation_share=0.3)


def rows(users: int = 4) -> list[Pair]:
    return [replace(pair(f"c{n}", said=f"Name fruit {n}."), user_id=f"user {n % users}") for n in range(8)]


def train(
    folder: Path, config: DpoConfig, start: Path | None = None, pairs: Sequence[Pair] = ()
) -> tuple[Manifest, Path]:
    def write(pairs_made: Output[Pair], config: object) -> None:
        pairs_made.write(pairs or rows(), [], len(pairs or rows()))

    if not (folder / "pairs").exists():
        execute(Call("rip", write, {}, {}, "pairs_made", Output(folder / "pairs", Pair), DpoConfig()))
    given = {"pairs": Input(folder / "pairs", Pair)}
    if start is not None:
        given["start"] = Input(start, Pair)
    made = folder / f"model-{len(list(folder.iterdir()))}"
    return execute(Call("dpo", run, given, {}, "model", Output(made, Pair), config)), made


def test_card_curves_and_merged_weights_lie_beside_the_adapter(tmp_path: Path, config: DpoConfig) -> None:
    described, made = train(tmp_path, replace(config, merge=True))
    history = read_history(made)
    assert [row["step"] for row in history if "loss" in row] == [*range(1, 13)]
    assert [row["step"] for row in history if "eval_loss" in row][-1] == 12
    text = (made / "README.md").read_text()
    assert ModelCard(text).data.to_dict()["library_name"] == "peft"
    assert f"| pairs | `{Input(tmp_path / 'pairs', Pair).manifest.digest}` |" in text
    assert "on 6 preference pairs of 3 users" in text
    assert "| dpo | 8 | 6 | validation 2 |" in text
    assert "| validation pairs | 2 of 1 users, none of whom was trained on |" in text
    assert f"ranked first | {100 * described.metrics['validation_accuracy']:.1f}%" in text
    assert f"nats | {described.metrics['validation_margin']:.3f}" in text
    assert (made / "training.png").read_bytes().startswith(b"\x89PNG")

    base = AutoModelForCausalLM.from_pretrained(config.model.id, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(made / "merged", dtype=torch.float32).eval()
    theirs = PeftModel.from_pretrained(base, str(made / "adapter")).merge_and_unload().eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, theirs(ids).logits)


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["on", "off"])
def test_best_weights_are_given_where_training_waits_for_better(
    tmp_path: Path, config: DpoConfig, packing: str
) -> None:
    # a rate that is far too high: validation is best somewhere on the way
    wild = replace(config, learning_rate=0.3, epochs=12, evaluate_every=1, packing=packing)  # type: ignore[arg-type]
    described, made = train(tmp_path, replace(wild, patience=4))
    validations = [row for row in read_history(made) if "eval_loss" in row]
    losses = [row["eval_loss"] for row in validations]
    best = losses.index(min(losses))
    assert described.metrics["steps"] == len(losses) == best + 1 + 4 < 36
    assert described.metrics["validation_loss"] == min(losses)
    if packing == "on":  # which measures by pair, with the weights that are given
        margins = [f"{row['eval_rewards/margins']:.3f}" for row in validations]
        assert len(set(margins)) == len(margins)
        assert f"nats | {margins[best]} (" in (made / "README.md").read_text()


def test_much_longer_chosen_answers_are_warned_of_and_noted(
    tmp_path: Path, config: DpoConfig, caplog: pytest.LogCaptureFixture
) -> None:
    wordy = [replace(row, chosen=row.rejected * 3) for row in rows()]
    with caplog.at_level(logging.WARNING, "rlhi"):
        described, made = train(tmp_path, replace(config, epochs=1), pairs=wordy)
    text = described.notes["warning: lengths"]
    assert any(text in record.getMessage() for record in caplog.records)
    assert f"- {text}" in (made / "README.md").read_text()


@pytest.mark.slow
def test_second_round_says_where_it_started(tmp_path: Path, config: DpoConfig) -> None:
    first, made = train(tmp_path, replace(config, epochs=1))
    _, again = train(tmp_path, replace(config, epochs=1), start=made)
    assert f"Started from the model with digest `{first.digest}`" in (again / "README.md").read_text()


@pytest.mark.slow
def test_curves_are_in_mlflow_once(tmp_path: Path, config: DpoConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    (tmp_path / "store").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store/mlflow.db")
    monkeypatch.setattr(live, "EVERY", 0.2)
    monkeypatch.setattr("rlhi.dpo.callbacks.EVERY", 0.0)
    train(tmp_path / "work", replace(config, epochs=4))
    client = MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    (found,) = [each for each in runs(client) if each.info.run_name == "dpo"]
    for name in (
        "loss",
        "logps/chosen",
        "rewards/margins",
        "lengths/chosen",
        "logps/end",
        "needed_share",
        "tokens_per_s",
    ):
        points = client.get_metric_history(found.info.run_id, f"train/{name}")
        assert sorted(point.step for point in points) == [*range(1, 13)], name
    assert found.data.metrics["train/eval_loss"] > 0
    artifacts = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert {"README.md", "training.png"} <= artifacts


def runs(client: Any) -> list[Any]:
    return list(client.search_runs([each.experiment_id for each in client.search_experiments()]))


def test_log_probability_of_the_end_is_that_of_the_last_token(config: DpoConfig) -> None:
    row = pack([TokenizedPair("a", [5, 6], [7, 8, 9], [7]), TokenizedPair("b", [5], [8], [9, 4])], torch.device("cpu"))
    logprobs = -torch.arange(1.0, 8.0)  # by row: of 7, 8, 9 and 7, then of 8 and 9, 4
    assert row.ends(row.by_answer(logprobs)) == -3 - 5

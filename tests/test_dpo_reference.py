"""Log-probabilities of the reference: asked for once, kept by what they hang on, or taken from the sampler."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlhi import manifest
from rlhi.config import ModelConfig
from rlhi.dpo.config import DpoConfig
from rlhi.dpo.tokens import tokenize
from rlhi.dpo.work import work
from rlhi.engine.models import load_policy
from rlhi.errors import InputError
from rlhi.records import Pair
from rlhi.trees import Tree
from tests.conftest import write_model
from tests.dpo_runs import Stage, config_of, job_of, rows, weights, works, written
from tests.trees import plain_logprobs


def with_logprobs(model: Path) -> list[Pair]:
    """The pairs as a sampler gives them that runs ``model``: one answer at a time."""
    policy = load_policy(ModelConfig(id=str(model)))
    found = []
    for row in rows():
        _, (tokens,), _ = tokenize([row], policy.renderer, 400)
        with torch.no_grad():
            (own,) = plain_logprobs(policy.model, [Tree(tokens.prompt_ids, [tokens.chosen_ids, tokens.rejected_ids])])
        found.append(replace(row, chosen_logprob=own[0].item(), rejected_logprob=own[1].item()))
    return found


@pytest.fixture
def config(tiny_model: Path) -> DpoConfig:
    return replace(config_of(tiny_model), epochs=1)


@pytest.fixture
def counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[DpoConfig], tuple[float, float]]:
    """Runs the stage on the same eight pairs; gives how many were scored, and how many found stored."""
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    pairs = written(tmp_path / "pairs", rows())

    def run(config: DpoConfig) -> tuple[float, float]:
        out = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        assert Stage(pairs, out, config).finish() == 0
        metrics = manifest.load(out).metrics
        return metrics.get("scores/asked", 0), metrics.get("scores/stored", 0)

    return run


def test_another_learning_rate_asks_for_no_reference_again_and_another_model_for_all(
    counts: Callable[[DpoConfig], tuple[float, float]], config: DpoConfig, tmp_path: Path
) -> None:
    assert counts(config) == (8, 0)
    assert counts(replace(config, learning_rate=1e-3, lora_rank=None, packing="off")) == (0, 8)
    other = write_model(tmp_path / "other", 48)
    assert counts(replace(config, model=ModelConfig(id=str(other)))) == (8, 0)


@pytest.mark.slow
def test_what_two_processes_score_is_kept_for_one(
    config: DpoConfig, counts: Callable[[DpoConfig], tuple[float, float]], tmp_path: Path
) -> None:
    job = job_of(tmp_path / "job", config, rows())
    assert works(str(job.folder), tmp_path / "scratch", 2) == [0, 0]
    assert counts(config) == (0, 8)


@pytest.mark.slow
def test_logprobs_of_the_sampler_train_the_same(config: DpoConfig, tiny_model: Path, tmp_path: Path) -> None:
    pairs = with_logprobs(tiny_model)
    found = []
    for taken in (False, True):
        job = job_of(tmp_path / str(taken), replace(config, sampled_reference=taken), pairs)
        work(job)
        found.append(weights(job.trained))
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-3, rtol=0) for name in found[0])


def test_logprobs_of_another_model_are_refused(config: DpoConfig, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", 48)
    job = job_of(tmp_path / "job", replace(config, sampled_reference=True), with_logprobs(other))
    with pytest.raises(InputError, match=r"pair c\d: .* nats apart: another model, .*set dpo\.sampled_reference=false"):
        work(job)


def test_pair_without_logprobs_is_refused_where_they_are_to_be_taken(config: DpoConfig, tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", replace(config, sampled_reference=True), rows())
    with pytest.raises(InputError, match=r"pair c0: its sampler gave no log-probabilities"):
        work(job)

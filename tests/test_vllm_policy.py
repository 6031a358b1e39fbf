"""vLLM answers as a policy that was trained from its model: an adapter, or all weights. `make vllm`."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhi.config import ModelConfig, SamplingConfig, VllmConfig
from rlhi.engine import Request, generate
from rlhi.engine.models import load_policy, trained_in
from rlhi.engine.transformers import TransformersEngine
from rlhi.engine.vllm.engine import VllmEngine
from tests.conftest import VLLM, write_model
from tests.rows import messages

pytestmark = VLLM
GREEDY = SamplingConfig(temperature=0, max_tokens=12)
REQUESTS = [Request(f"r{i}", messages(said)) for i, said in enumerate(("Hi.", "Name a fruit.", "Two and two?"))]
RANK, ALPHA = 4, 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return ModelConfig(id=str(write_model(tmp_path_factory.mktemp("model"), 128)))


@pytest.fixture(scope="module")
def policies(model: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One policy twice: as an adapter in PEFT's format, and as a checkpoint with all weights, summed here by hand."""
    folder = tmp_path_factory.mktemp("policies")
    adapter, whole = folder / "a" / "adapter", folder / "w" / "weights"
    adapter.mkdir(parents=True)
    shutil.copytree(model.id, whole)
    weights = load_file(whole / "model.safetensors")
    lora: dict[str, torch.Tensor] = {}
    draw = torch.Generator().manual_seed(0)
    for name in [name for name in weights if ".q_proj." in name or ".down_proj." in name]:
        out, into = weights[name].shape
        a, b = torch.randn(RANK, into, generator=draw), torch.randn(out, RANK, generator=draw) / 8
        weights[name] += ALPHA / RANK * b @ a
        path = f"base_model.model.{name.removesuffix('.weight')}"
        lora |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    save_file(lora, adapter / "adapter_model.safetensors")
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA}
    settings |= {"target_modules": ["down_proj", "q_proj"], "base_model_name_or_path": model.id, "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    return {"adapter": folder / "a", "weights": folder / "w"}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM computes in this process, which is the quickest to start."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


def texts(engine: VllmEngine | TransformersEngine) -> list[str]:
    return [reply.text for (reply,) in generate(engine, REQUESTS, GREEDY, 1, 0)]


@pytest.mark.parametrize("kind", ["adapter", "weights"])
def test_answers_are_those_of_the_policy(model: ModelConfig, policies: dict[str, Path], kind: str) -> None:
    expected = TransformersEngine(load_policy(model, trained_in(policies["weights"])), 8)
    plain = VllmEngine(model, VllmConfig())
    engine = VllmEngine(model, VllmConfig(), policies[kind])
    assert engine.identity != plain.identity
    replies = [replies[0] for replies in generate(engine, REQUESTS, GREEDY, 1, 0)]
    there = [replies[0] for replies in generate(expected, REQUESTS, GREEDY, 1, 0)]
    assert [reply.text for reply in replies] == [reply.text for reply in there]
    assert [reply.text for reply in replies] != texts(TransformersEngine(load_policy(model), 8))
    for ours, theirs in zip(replies, there, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)

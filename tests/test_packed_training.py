"""Training on packed rows against TRL's trainer as it comes, in float32."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from rlhi.config import ModelConfig
from rlhi.dpo.config import DpoConfig
from rlhi.dpo.plan import batches, deal
from rlhi.dpo.tokens import TokenizedPair
from rlhi.dpo.train import open_trainer
from rlhi.dpo.trainer import Referred, TrainingData
from rlhi.engine.models import Policy
from rlhi.render import Renderer
from tests.trees import VOCABULARY, tiny

# prompt, chosen, rejected: uneven lengths, one token, equal answers
LENGTHS = [(50, 12, 3), (7, 1, 30), (120, 40, 40), (3, 1, 1), (64, 5, 17)]
CONFIG = DpoConfig(batch_size=5, micro_batch_size=5, row_tokens=150, learning_rate=1e-3, beta=0.5, lora_rank=4)


def drawn(number: int, lengths: tuple[int, int, int]) -> Referred:
    random_ids = random.Random(number)
    prompt, chosen, rejected = ([random_ids.randrange(1, VOCABULARY) for _ in range(n)] for n in lengths)
    if lengths[1:] == (40, 40):
        rejected = chosen
    return Referred(TokenizedPair(str(number), prompt, chosen, rejected), -30.0 - number, -31.0 + number)


PAIRS = [drawn(i, lengths) for i, lengths in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def renderer(tiny_model: Path) -> Renderer:
    return Renderer(AutoTokenizer.from_pretrained(tiny_model), "system")


def trainer_of(renderer: Renderer, family: str, config: DpoConfig, folder: Path, device: str = "cpu") -> Any:
    own = (ModelConfig(device=device), family, torch.device(device), torch.float32)
    policy = Policy(renderer, *own, lambda: tiny(family).to(device))
    steps = batches(len(PAIRS), config.batch_size, config.epochs, config.seed)
    trainer = open_trainer(config, policy, TrainingData(PAIRS, steps, PAIRS, config.row_tokens), folder)
    noise = torch.Generator().manual_seed(0)
    for weights in trainable(trainer).values():  # an adapter begins as zero, and half of its gradients with it
        weights.data += 0.02 * torch.randn(weights.shape, generator=noise).to(device)
    return trainer


def trainable(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: weights for name, weights in trainer.model.named_parameters() if weights.requires_grad}


def gradients(trainer: Any) -> tuple[float, torch.Tensor]:
    """Loss and gradients of one step on all pairs."""
    (inputs,) = trainer.get_train_dataloader()
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.training_step(trainer.model, inputs)
    return loss.item(), torch.cat([weights.grad.flatten() for weights in trainable(trainer).values()])


def logprobs_of(trainer: Any) -> torch.Tensor:
    """Of all chosen answers and then all rejected, by TRL's own way."""
    batch = trainer.data_collator(list(trainer.train_dataset))
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    found: torch.Tensor = trainer.model(**given, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(1)
    return found.detach()


def validated(trainer: Any) -> torch.Tensor:
    trainer.model_wrapped = trainer.model
    trainer.evaluate()
    chosen = [one.chosen + pair.chosen for one, pair in zip(trainer.validated, PAIRS, strict=True)]
    rejected = [one.rejected + pair.rejected for one, pair in zip(trainer.validated, PAIRS, strict=True)]
    return torch.tensor([*chosen, *rejected])


@pytest.mark.parametrize(("family", "rank"), [("llama", 4), ("llama", None), ("qwen2", 4), ("qwen3", None)])
def test_packed_rows_train_as_the_stock_trainer_does(
    renderer: Renderer, family: str, rank: int | None, tmp_path: Path
) -> None:
    config = replace(CONFIG, lora_rank=rank)
    ours = trainer_of(renderer, family, config, tmp_path)
    stock = trainer_of(renderer, family, replace(config, packing="off"), tmp_path)
    assert torch.allclose(validated(ours), logprobs_of(stock), atol=1e-3, rtol=0)
    (loss, own), (wanted_loss, wanted) = gradients(ours), gradients(stock)
    assert loss == pytest.approx(wanted_loss, abs=1e-4)
    assert torch.nn.functional.cosine_similarity(own, wanted, dim=0) > 0.9999
    assert own.norm().item() == pytest.approx(wanted.norm().item(), rel=1e-3)


@pytest.mark.parametrize(
    "losses",
    [
        {"loss_type": ("ipo",)},
        {"loss_type": ("robust",), "label_smoothing": 0.1},
        {"loss_type": ("sigmoid", "sft"), "loss_weights": (1.0, 0.3)},
        {"loss_type": ("sft",)},
        {"loss_type": ("hinge", "sigmoid_norm")},
    ],
    ids=lambda losses: "+".join(losses["loss_type"]),
)
def test_every_loss_of_a_step_in_rows_is_that_of_the_step_as_one(
    renderer: Renderer, losses: dict[str, Any], tmp_path: Path
) -> None:
    config = replace(CONFIG, **losses)
    ours = trainer_of(renderer, "llama", config, tmp_path)
    assert sum(1 for rows in ours.get_train_dataloader() for _ in rows["rows"]) > 1
    stock = trainer_of(renderer, "llama", replace(config, packing="off"), tmp_path)
    (loss, own), (wanted_loss, wanted) = gradients(ours), gradients(stock)
    assert loss == pytest.approx(wanted_loss, rel=1e-4)
    assert torch.nn.functional.cosine_similarity(own, wanted, dim=0) > 0.9999
    assert own.norm().item() == pytest.approx(wanted.norm().item(), rel=1e-3)


def test_figures_are_those_of_the_stock_trainer(renderer: Renderer, tmp_path: Path) -> None:
    logs = []
    for packing in ("on", "off"):
        trainer = trainer_of(renderer, "llama", replace(CONFIG, packing=packing), tmp_path / packing)
        trainer.train()
        logs.append(next(row for row in trainer.state.log_history if "loss" in row))
    ours, stock = logs
    for name in ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen"):
        assert ours[name] == pytest.approx(stock[name], rel=1e-3), name
    assert ours["lengths/chosen"] == pytest.approx(sum(n for _, n, _ in LENGTHS) / 5)
    assert ours["lengths/rejected"] == pytest.approx(sum(n for _, _, n in LENGTHS) / 5)
    assert ours["needed_share"] == 1
    assert ours["tokens_per_s"] > 0


def test_layers_computed_again_in_the_backward_pass_change_nothing(renderer: Renderer, tmp_path: Path) -> None:
    found = []
    for again in (False, True):
        trainer = trainer_of(renderer, "llama", CONFIG, tmp_path)
        if again:
            trainer.model.activation_checkpointing_enable({"use_reentrant": False})
        found.append(gradients(trainer))
    assert found[0][0] == found[1][0]
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("rank", [4, None])
def test_kernels_of_a_gpu_learn_as_the_stock_trainer_does(renderer: Renderer, rank: int | None, tmp_path: Path) -> None:
    config = replace(CONFIG, lora_rank=rank)
    ours = trainer_of(renderer, "llama", config, tmp_path, "cuda")
    stock = trainer_of(renderer, "llama", replace(config, packing="off"), tmp_path, "cuda")
    (loss, own), (wanted_loss, wanted) = gradients(ours), gradients(stock)
    assert loss == pytest.approx(wanted_loss, rel=0.05)
    assert torch.nn.functional.cosine_similarity(own, wanted, dim=0) > 0.99


@pytest.mark.parametrize(("pairs", "batch", "epochs", "steps"), [(10, 4, 1.0, 3), (10, 4, 2.0, 5), (3, 64, 2.0, 2)])
def test_every_step_takes_as_many_pairs(pairs: int, batch: int, epochs: float, steps: int) -> None:
    found = batches(pairs, batch, epochs, seed=0)
    assert [len(step) for step in found] == [min(pairs, batch)] * steps
    passed = [pair for step in found for pair in step]
    for start in range(0, len(passed) - pairs + 1, pairs):
        assert sorted(passed[start : start + pairs]) == list(range(pairs))
    assert found == batches(pairs, batch, epochs, seed=0) != batches(pairs, batch, epochs, seed=1)


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("budget", [64, 300, 10_000])
def test_rows_hold_each_pair_once_and_keep_to_the_budget(processes: int, budget: int) -> None:
    drawn = random.Random(0)
    lengths = [drawn.randrange(10, 200) for _ in range(20)]
    batch = [3, 1, 4, 15, 9, 2, 6, 5, 8, 7]
    dealt = deal(batch, lengths, budget, processes)
    assert {len(rows) for rows in dealt} == {len(dealt[0])}
    assert len(dealt) == processes
    rows = [row for own in dealt for row in own]
    assert sorted(pair for row in rows for pair in row) == sorted(batch)
    assert all(len(row) < 2 or sum(lengths[pair] for pair in row) <= budget for row in rows)


def sizes(rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[pair] for pair in row) for row in rows]


def test_processes_get_about_as_many_tokens() -> None:
    drawn = random.Random(1)
    lengths = [drawn.randrange(200, 4000) for _ in range(64)]
    dealt = deal(range(64), lengths, 8192, 4)
    totals = [sum(sizes(rows, lengths)) for rows in dealt]
    assert max(totals) < 1.05 * min(totals)

"""Reward models for tests: a fake that scores by rule, and tiny random classifiers whose heads know the probe."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from rlhi.records import Candidates
from rlhi.render import Renderer
from rlhi.reward import probe
from rlhi.reward.contract import Contract, save_contract
from rlhi.reward.model import Score
from rlhi.reward.reading import Reader

CHATML = Contract(scale="tiny", bos=0, max_tokens=1024)
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
}


class FakeReward:
    """Scores each answer by ``rule(row, text)``; ``seen`` is what it was asked."""

    scale = "fake"
    note = "The reward is made up."
    identity = "fake"

    def __init__(self, rule: Callable[[Candidates, str], Score], *, bounded: bool = False) -> None:
        self.rule = rule
        self.bounded = bounded
        self.seen: list[str] = []

    def score(self, rows: Sequence[Candidates]) -> list[list[Score]]:
        self.seen += [row.id for row in rows]
        return [[self.rule(row, each.text) for each in row.answers] for row in rows]


def make_classifier(
    folder: Path, tokenizer: Path, contract: Contract = CHATML, family: str = "llama", hidden_size: int = 32
) -> Path:
    """A folder with a random classifier of two layers that ranks the probe right, and its contract."""
    loaded = AutoTokenizer.from_pretrained(str(tokenizer))
    loaded.save_pretrained(folder)
    torch.manual_seed(1)
    sizes = {**SIZES, "vocab_size": len(loaded), "num_labels": 1, "pad_token_id": loaded.pad_token_id}
    sizes |= {"hidden_size": hidden_size}
    if family == "qwen3":
        model = Qwen3ForSequenceClassification(Qwen3Config(**sizes, head_dim=hidden_size // 4))
    else:
        model = LlamaForSequenceClassification(LlamaConfig(**sizes))
    _teach(model, Reader(Renderer(loaded, contract.persona), contract, knows_persona=True))
    model.save_pretrained(folder)
    save_contract(contract, folder)
    return folder


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _teach(model: Any, reader: Reader) -> None:
    """Sets the head so that good answers of the probe score 2 and bad ones -2."""
    read = [one for row in probe.rows() for one in reader.read(row)]
    states = torch.stack([model.model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in read])
    wanted = torch.tensor([2.0, -2.0] * len(probe.PAIRS))[:, None]
    model.score.weight.copy_(torch.linalg.lstsq(states, wanted, driver="gelsd").solution.T)

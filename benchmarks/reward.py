"""How fast many answers to one context are scored: a packed prefix tree beside padded batches.

    python benchmarks/reward.py                  the embedded model, 32 answers, three rounds

One context of 380 tokens and 32 answers of 190 tokens on average, as uneven as answers are, go through the body of
SmolLM2-135M under a random scalar head. The padded ways are transformers' own sequence classifier: SDPA, padding on the
right with an attention mask, 8 rows at a time, in the order in which the answers come or sorted by length. All take
turns, and of each the median round is told. `token_ratio` is what the packed way computes, against the context and the
answers once.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from transformers import LlamaForSequenceClassification
from transformers.utils import logging as transformers_logging

from rlhi.engine import embedded
from rlhi.progress import silent
from rlhi.trees import BUDGET, Tree, last_hidden
from rlhi.trees.packing import packed

CONTEXT, ANSWER, ROWS = 380, 190, 8
Scores = Callable[[Any, Tree], torch.Tensor]


def main() -> None:
    """Runs every way in turn, prints a line each and at last one JSON object."""
    given = _parser().parse_args()
    stock, tree = classifier(), made(given.answers)
    ours = deepcopy(stock)  # the packed way changes its model's attention; the random head has to be the same
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    scores: dict[str, torch.Tensor] = {}
    with torch.inference_mode(), silent():
        for way, score in WAYS.items():
            score(ours if way == "packed" else stock, made(2))  # warms up
        for _ in range(given.rounds):
            for way, score in WAYS.items():
                started = time.perf_counter()
                scores[way] = score(ours if way == "packed" else stock, tree)
                seconds[way].append(time.perf_counter() - started)
    median = {way: statistics.median(own) for way, own in seconds.items()}
    for way, own in seconds.items():
        shown = ", ".join(f"{each:.2f}" for each in own)
        sys.stdout.write(f"{way:<14} seconds: {shown}; {tokens(way, tree):,} tokens\n")
    sys.stdout.write(json.dumps(_figures(median, scores, tree)) + "\n")


def _figures(median: dict[str, float], scores: dict[str, torch.Tensor], tree: Tree) -> dict[str, float]:
    floor = len(tree.prompt) + sum(len(branch) for branch in tree.branches)
    ours, stock = scores["packed"], scores["padded random"]
    if not torch.equal(ours.argsort(), stock.argsort()):
        raise RuntimeError(f"packed and padded scores rank the answers differently: {ours.tolist()}, {stock.tolist()}")
    return {
        "speedup_random": round(median["padded random"] / median["packed"], 2),
        "speedup_sorted": round(median["padded sorted"] / median["packed"], 2),
        "token_ratio": round(tokens("packed", tree) / floor, 4),
        "max_abs_diff": float((ours - stock).abs().max()),
    }


def classifier() -> Any:
    """The embedded model's body under a random head of one label."""
    torch.manual_seed(0)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # the head is missing from the checkpoint, as it should be
    model = LlamaForSequenceClassification.from_pretrained(str(embedded.folder()), num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = 0
    return model.eval()


def made(answers: int) -> Tree:
    """Random tokens; the lengths of answers are log-normal around a mean of `ANSWER`, none above four times it."""
    drawn = random.Random(0)
    raw = [min(drawn.lognormvariate(0, 0.6), 4.0) for _ in range(answers)]
    lengths = [max(1, round(ANSWER * each * answers / sum(raw))) for each in raw]
    ids = [[drawn.randrange(1, 49_000) for _ in range(length)] for length in (CONTEXT, *lengths)]
    return Tree(ids[0], ids[1:])


def pack(model: Any, tree: Tree) -> torch.Tensor:
    return model.score(last_hidden(model, [tree])[0])[:, 0]


def in_order(model: Any, tree: Tree) -> torch.Tensor:
    return pad(model, tree, range(len(tree.branches)))


def by_length(model: Any, tree: Tree) -> torch.Tensor:
    return pad(model, tree, sorted(range(len(tree.branches)), key=lambda k: len(tree.branches[k])))


def pad(model: Any, tree: Tree, order: Sequence[int]) -> torch.Tensor:
    found = torch.empty(len(order))
    for start in range(0, len(order), ROWS):
        part = list(order[start : start + ROWS])
        rows = [[*tree.prompt, *tree.branches[k]] for k in part]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        found[part] = model(ids, attention_mask=mask, use_cache=False).logits[:, 0]
    return found


WAYS: dict[str, Scores] = {"padded random": in_order, "padded sorted": by_length, "packed": pack}


def tokens(way: str, tree: Tree) -> int:
    """Tokens that a way computes, padding included."""
    if way == "packed":
        return sum(batch.ids.numel() for batch in packed([tree], BUDGET))
    lengths = [len(tree.prompt) + len(branch) for branch in tree.branches]
    lengths = sorted(lengths) if way == "padded sorted" else lengths
    return sum(max(part) * len(part) for part in (lengths[i : i + ROWS] for i in range(0, len(lengths), ROWS)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=32, help="answers to the context")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count")
    return parser


if __name__ == "__main__":
    main()

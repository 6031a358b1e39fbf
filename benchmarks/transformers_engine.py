"""How many tokens a second the transformers engine writes, beside the `generate` of transformers on the same batch.

    python benchmarks/transformers_engine.py       the embedded model, on the first GPU or else on the CPU

Both get the same prompts, which share a beginning as those of a stage do, and draw answers at the paper's temperature
and top-p. They take turns; a token counts until its row has ended. `generate` computes the shared beginning for every
prompt, and goes on with rows that have ended until the last one has. Prints every round, and as its last line one JSON
object with the medians.
"""

import argparse
import json
import statistics
import sys
import time

import torch

from rlhi.config import ModelConfig, SamplingConfig
from rlhi.engine import Request, tally
from rlhi.engine.models import Policy, load_policy
from rlhi.engine.transformers import TransformersEngine
from rlhi.records import Message

SHARED = "You answer questions about keeping food. Name the food first, then how long it keeps and where. " * 8
THINGS = (
    "bread",
    "apples",
    "rice",
    "a fish from the market",
    "the half of an onion that was left over",
    "milk",
    "figs",
)


def main() -> None:
    """Runs both ways in turn."""
    given = _parser().parse_args()
    policy = load_policy(ModelConfig(id=given.model))
    sampling = SamplingConfig(max_tokens=given.tokens)
    requests = [
        Request(str(i), (Message("user", f"{SHARED}Question {i}: how long does {THINGS[i % len(THINGS)]} keep?"),))
        for i in range(given.rows)
    ]
    rounds: dict[str, list[float]] = {"engine": [], "generate": []}
    for seed in range(-1, given.rounds):  # the first warms up
        found = {
            "engine": engine(policy, requests, sampling, seed + 1),
            "generate": generate(policy, requests, sampling, seed + 1),
        }
        if seed >= 0:
            for way, rate in found.items():
                rounds[way].append(rate)
            sys.stdout.write(", ".join(f"{way} {rate:,.0f} tokens/s" for way, rate in found.items()) + "\n")
    ours, theirs = (statistics.median(rates) for rates in rounds.values())
    figures = {"tokens_per_s": round(ours), "generate_tokens_per_s": round(theirs), "ratio": round(ours / theirs, 2)}
    sys.stdout.write(json.dumps({**figures, "rows": given.rows, "device": _device(policy)}) + "\n")


def engine(policy: Policy, requests: list[Request], sampling: SamplingConfig, seed: int) -> float:
    """Tokens a second of ours."""
    counted, started = tally.since(), time.perf_counter()
    asked = TransformersEngine(policy, len(requests)).stream(requests, sampling, [[0]] * len(requests), seed)
    if len(list(asked)) != len(requests):
        raise RuntimeError("not every request was answered")
    return counted()["tokens"] / (time.perf_counter() - started)


@torch.inference_mode()
def generate(policy: Policy, requests: list[Request], sampling: SamplingConfig, seed: int) -> float:
    """Tokens a second of transformers, on left-padded prompts."""
    torch.manual_seed(seed)
    started = time.perf_counter()
    prompts = [policy.renderer.prompt(request.messages) for request in requests]
    width = max(map(len, prompts))
    end = policy.renderer.end
    ids = torch.tensor([[end] * (width - len(p)) + p for p in prompts], device=policy.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=policy.device)
    out = policy.model.generate(
        ids,
        attention_mask=mask,
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=0,
        max_new_tokens=sampling.max_tokens,
        eos_token_id=end,
        pad_token_id=end,
    )
    written = out[:, width:].tolist()
    [policy.renderer.tokenizer.decode(row, skip_special_tokens=True) for row in written]
    tokens = sum(row.index(end) if end in row else len(row) for row in written)
    return tokens / (time.perf_counter() - started)


def _device(policy: Policy) -> str:
    return torch.cuda.get_device_name(policy.device) if policy.device.type == "cuda" else "cpu"


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="embedded", help="a Hugging Face id, or a folder [embedded]")
    made.add_argument("--rows", type=int, default=32, help="prompts, all in one batch [32]")
    made.add_argument("--tokens", type=int, default=64, help="longest answer [64]")
    made.add_argument("--rounds", type=int, default=3, help="how often each way runs; the median counts [3]")
    return made


if __name__ == "__main__":
    main()

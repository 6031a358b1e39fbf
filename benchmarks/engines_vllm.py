"""How much of classification's prompts vLLM finds in its cache, and what the order of the requests is worth.

    .venv-vllm/bin/python benchmarks/engines_vllm.py    (after make install-vllm)

The classify stage's own prompt and labels on a random Llama, on one core of this machine. The same scores are asked for
twice: as the engine does (prompts in order, each computed by a request of its own before its choices), and at once in
any order, each prompt with each choice by itself. vLLM's cache is on both times, begins empty, and is smaller than what
is asked, as it is where a stage has a million prompts and a GPU room for a thousand: a quarter of them. A last run
shows what vLLM does by itself, which computes every scored prompt anew. Prints the share of prompt tokens that came out
of the cache and requests per second (all choices of a prompt are one), and as its last line one JSON object.
"""

import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}

from rlhi.classify.stage import LABELS
from rlhi.config import ModelConfig, VllmConfig
from rlhi.engine.models import Identified, identify
from rlhi.engine.vllm.replica import Drawn, Job, Replica
from rlhi.engine.vllm.scoring import WHOLE, scores
from rlhi.engine.vllm.start import arguments
from rlhi.engine.vllm.told import Told
from rlhi.engine.vllm.watch import Watch
from rlhi.questions import bracketed
from rlhi.records import Message
from rlhi.render import prompt
from rlhi.trees import shared_head

PROMPTS = 64
ROUNDS = 3
BLOCK = 32  # tokens of the cache that are kept or lost together; 16 on a GPU
ROOM = 0.25  # of all prompts' own tokens
WORDS = "how do I write a short and polite letter to my landlord about the heating that has not worked for days"
TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


Order = Callable[[Iterator[list[Job]]], list[Job]]


@dataclass(frozen=True)
class Run:
    """Seconds, tokens of all prompts that were sent, those of them that came out of the cache, and the scores."""

    seconds: float
    sent: int
    cached: int
    scores: dict[int, list[float]]


def main() -> None:
    """Runs every way in turn, prints a line each and at last one JSON object."""
    with tempfile.TemporaryDirectory(prefix="rlhi-benchmark-") as folder:
        model = identify(ModelConfig(id=str(write_model(Path(folder)))))
        renderer = model.renderer
        prompts = [renderer.prompt((Message("user", text),)) for text in texts()]
        ends = [renderer.encode(choice) for choice in bracketed(LABELS)]
        head = shared_head(prompts)
        room = head + int(ROOM * sum(len(each) - head for each in prompts))
        sys.stdout.write(
            f"{PROMPTS} prompts of {statistics.mean(map(len, prompts)):.0f} tokens, the first {head} the same, "
            f"{len(ends)} choices; the cache holds {room} tokens\n"
        )
        found = measure(open_replica(model, room), prompts, ends)
    ours, theirs = found["ordered, warmed"], found["shuffled, unwarmed"]
    result = {
        "prefix_cached_share": round(ours.cached / ours.sent, 3),
        "prefix_cached_share_shuffled": round(theirs.cached / theirs.sent, 3),
        "prefix_rps": round(PROMPTS / ours.seconds, 1),
        "prefix_rps_shuffled": round(PROMPTS / theirs.seconds, 1),
        "prefix_speedup": round(theirs.seconds / ours.seconds, 2),
    }
    sys.stdout.write(json.dumps(result) + "\n")


def texts() -> list[str]:
    """The stage's prompts, on pairs of requests of 10 to 100 words."""
    draw = random.Random(0)

    def said() -> str:
        return " ".join(draw.choices(WORDS.split(), k=draw.randint(10, 100)))

    return [
        prompt("rlhi.classify", "prompt.j2", initial_request=said(), current_request=said()) for _ in range(PROMPTS)
    ]


def in_order(groups: Iterator[list[Job]]) -> list[Job]:
    """As the engine asks: neighbours by their prompts, each prompt before its choices."""
    return [job for group in sorted(groups, key=lambda own: own[0].prompt) for job in group]


def in_any_order(groups: Iterator[list[Job]]) -> list[Job]:
    """Each choice of each prompt by itself, shuffled."""
    jobs = [job for group in groups for job in group if job.samples.start != WHOLE]
    return random.Random(0).sample(jobs, len(jobs))


def measure(replica: Replica, prompts: list[list[int]], ends: Sequence[list[int]]) -> dict[str, Run]:
    """The run with the median time of each way; they take turns, after one of the first that is not counted.

    Raises:
        RuntimeError: a way gives other scores than another.
    """

    def each() -> dict[str, Run]:
        return {
            "ordered, warmed": run(replica, prompts, ends, in_order),
            "shuffled, unwarmed": run(replica, prompts, ends, in_any_order),
        }

    run(replica, prompts, ends, in_order)
    runs = [each() for _ in range(ROUNDS)]
    medians = {name: sorted((own[name] for own in runs), key=lambda one: one.seconds)[ROUNDS // 2] for name in runs[0]}
    medians["vllm by itself"] = run(replica, prompts, ends, in_order, anew=True)
    expected = medians["vllm by itself"].scores
    for name, found in medians.items():
        if any(abs(a - b) > 1e-2 for key in expected for a, b in zip(found.scores[key], expected[key], strict=True)):
            raise RuntimeError(f"{name}: a score is off")
        sys.stdout.write(
            f"{name:20} {PROMPTS / found.seconds:6.1f} requests/s, {found.cached / found.sent:6.1%} of the prompt "
            f"tokens from the cache, {(found.sent - found.cached) / PROMPTS:5.0f} computed for a request\n"
        )
    return medians


def run(
    replica: Replica, prompts: list[list[int]], ends: Sequence[list[int]], order: Order, *, anew: bool = False
) -> Run:
    """All prompts at once, with nothing in the cache; a score that is not told then is asked for again, as always."""
    sent: list[Drawn] = []

    def kept(groups: Iterator[list[Job]]) -> Iterator[Drawn]:
        for drawn in replica.run(iter(order(groups))):
            sent.append(drawn)
            yield drawn

    replica.forget()
    started = time.perf_counter()
    found = dict(scores(kept, enumerate(prompts), ends, anew=anew))
    seconds = time.perf_counter() - started
    return Run(seconds, sum(len(one.job.prompt) for one in sent), sum(one.cached for one in sent), found)


def open_replica(model: Identified, room: int) -> Replica:
    """vLLM with a cache for ``room`` tokens."""
    args = arguments(model, VllmConfig(max_model_len=1024))
    from vllm.v1.engine.llm_engine import LLMEngine

    told = Told()
    with told.listening():
        engine = LLMEngine.from_engine_args(
            replace(args, block_size=BLOCK, num_gpu_blocks_override=-(-room // BLOCK), enforce_eager=True)
        )
    return Replica(engine, told, Watch([], lambda: None))


def write_model(folder: Path) -> Path:
    """A random Llama with some 12 million weights, and a tokenizer for the words of the prompts."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2048, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([*texts(), *bracketed(LABELS)], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()

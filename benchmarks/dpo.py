"""How fast DPO trains on pairs with a long shared prompt: packed rows beside TRL's own DPOTrainer.

    python benchmarks/dpo.py                       a random Llama of 15M parameters, one core, three rounds
    python benchmarks/dpo.py --model smollm2       the embedded model
    python benchmarks/dpo.py --model 8b --device cuda --batches 1 2 --scale 1 --row-tokens 8192    Llama-3.1-8B's shape

Loss and gradients of all weights, for pairs as long as those of real chats (prompt 956 tokens on average, chosen answer
561, rejected 549), scaled. `trl` computes the reference in every step, as it does unless told otherwise; `trl
precomputed` and `packed` are given its log-probabilities. Every way has a process of its own, in turn, so that peak
memory is its own; of the times each round makes ratios, and the median is told. Speed is against `trl` as it comes;
`speedup_precomputed_*` leaves its reference out.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging
from trl import DPOConfig

from rlhi.config import ModelConfig
from rlhi.dpo import config as dpo
from rlhi.dpo.tokens import TokenizedPair
from rlhi.dpo.train import open_trainer, stock
from rlhi.dpo.trainer import PreparedDPOTrainer, Referred, TrainingData
from rlhi.engine import embedded
from rlhi.engine.models import Policy
from rlhi.render import Renderer

WAYS = ("trl", "trl precomputed", "packed")
LENGTHS = {"prompt": (956, 2.5), "chosen": (561, 2.0), "rejected": (549, 2.0)}  # mean, shape of a gamma distribution
PEAK = 989e12  # multiply-adds counted twice, a second, of an H100 in bfloat16
SHAPES: dict[str, dict[str, Any]] = {
    "15m": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8, "num_attention_heads": 4},
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "vocab_size": 128256,
    },
}


@dataclass(frozen=True)
class Made:
    """What one way took for all pairs, by batch: seconds, tokens computed, peak bytes."""

    seconds: dict[str, float]
    tokens: dict[str, int]
    peak: dict[str, float]


def main() -> None:
    """Runs every way in turn, prints a line each and at last one JSON object."""
    given = _parser().parse_args()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    torch.set_num_threads(given.threads)
    if given.only:
        sys.stdout.write(json.dumps(alike(given) if given.only == "alike" else asdict(measured(given))) + "\n")
        return
    rounds = []
    for number in range(given.rounds):
        found = {way: Made(**_child(given, way)) for way in WAYS}
        rounds.append(found)
        for way, made in found.items():
            shown = ", ".join(f"batch {n}: {t:.1f} s, {made.peak[n] / 2**30:.2f} GiB" for n, t in made.seconds.items())
            sys.stdout.write(f"round {number + 1}, {way:<16} {shown}\n")
            sys.stdout.flush()
    sys.stdout.write(
        json.dumps(_figures(given, rounds) | (_child(given, "alike") if given.device == "cpu" else {})) + "\n"
    )


def _figures(given: argparse.Namespace, rounds: list[dict[str, Made]]) -> dict[str, float | str]:
    pairs = drawn(given)
    floor = sum(pair.pair.needed for pair in pairs)
    ours = [found["packed"] for found in rounds]
    figures: dict[str, float | str] = {"model": given.model, "device": given.device}
    for name, way in (("speedup", "trl"), ("speedup_precomputed", "trl precomputed")):
        for n in map(str, given.batches):
            ratios = [found[way].seconds[n] / found["packed"].seconds[n] for found in rounds]
            figures[f"{name}_b{n}"] = round(statistics.median(ratios), 2)
    largest = str(max(given.batches))
    memory = [found["packed"].peak[largest] / found["trl"].peak[largest] for found in rounds]
    figures |= {
        "token_ratio": round(max(max(made.tokens.values()) for made in ours) / floor, 4),
        "trl_token_ratio": round(rounds[0]["trl"].tokens[largest] / floor, 2),
        "memory_ratio": round(statistics.median(memory), 3),
        "pairs_per_s": round(len(pairs) / statistics.median(made.seconds[largest] for made in ours), 3),
    }
    if given.device == "cuda":
        best = min(min(made.seconds.values()) for made in ours)
        figures["share_of_peak"] = round(6 * _parameters(given) * floor / best / PEAK, 3)
    return figures


def _child(given: argparse.Namespace, only: str) -> dict[str, Any]:
    batches = [str(n) for n in given.batches]
    argv = [sys.executable, __file__, "--only", only, "--model", given.model, "--device", given.device]
    argv += ["--pairs", str(given.pairs), "--scale", str(given.scale), "--threads", str(given.threads)]
    argv += [
        "--row-tokens",
        str(given.row_tokens),
        "--batches",
        *batches,
        *(["--layers", str(given.layers)] if given.layers else []),
    ]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(given: argparse.Namespace) -> Made:
    """One way, for each size of batch: warms up on one, then takes all pairs."""
    made = Made({}, {}, {})
    pairs = drawn(given)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = opened(given, given.only, max(given.batches), pairs, scratch)
        for size in given.batches:
            batches = [inputs_of(trainer, given.only, pairs[i : i + size]) for i in range(0, len(pairs), size)]
            step(trainer, batches[0][0])
            _reset_peak(given.device)
            started = time.perf_counter()
            for inputs, _ in batches:
                step(trainer, inputs)
            made.seconds[str(size)] = time.perf_counter() - started
            made.tokens[str(size)] = sum(tokens for _, tokens in batches)
            made.peak[str(size)] = _peak(given.device)
    return made


def step(trainer: Any, inputs: Any) -> None:
    """Loss and gradients, without the optimizer's step."""
    trainer.training_step(trainer.model, inputs)
    trainer.model.zero_grad(set_to_none=False)
    if trainer.accelerator.device.type == "cuda":
        torch.cuda.synchronize()


def inputs_of(trainer: Any, way: str, pairs: list[Referred]) -> tuple[Any, int]:
    """A step's input, and the tokens that it computes."""
    if way == "packed":
        inputs = trainer._rows(range(len(pairs)), pairs)
        # the last token of an answer is predicted, and not computed
        return inputs, sum(pair.pair.needed - 2 for pair in pairs)
    rows = [stock(pair) for pair in pairs]
    if way == "trl":
        rows = [{name: ids for name, ids in row.items() if name.endswith("ids")} for row in rows]
    inputs = trainer.data_collator(rows)
    return inputs, inputs["input_ids"].numel()


def opened(given: argparse.Namespace, way: str, size: int, pairs: list[Referred], scratch: str) -> Any:
    """The trainer of one way, ready for `step`."""
    policy = policy_of(given)
    checkpointing = given.device == "cuda"
    if way == "packed":
        settings = dpo.DpoConfig(
            batch_size=size, lora_rank=None, row_tokens=given.row_tokens, gradient_checkpointing=checkpointing
        )
        trainer = open_trainer(
            settings, policy, TrainingData(pairs, [list(range(size))], [], given.row_tokens), scratch
        )
    else:
        trainer = PreparedDPOTrainer(
            model=policy.model.train(),
            ref_model=loaded(given) if way == "trl" else None,
            args=DPOConfig(
                output_dir=scratch,
                per_device_train_batch_size=size,
                max_length=None,
                precompute_ref_log_probs=way != "trl",
                bf16=given.device == "cuda",
                use_cpu=given.device == "cpu",
                activation_checkpointing=checkpointing,
                report_to=[],
            ),
            train_dataset=Dataset.from_list([stock(pairs[0])]),
            processing_class=policy.renderer.tokenizer,
        )
        trainer.precompute_ref_logps = way != "trl"
    trainer.current_gradient_accumulation_steps = 1
    if checkpointing:  # `train` would see to it
        trainer.model.activation_checkpointing_enable({"use_reentrant": False})
    return trainer


def alike(given: argparse.Namespace) -> dict[str, float]:
    """How far packed rows and TRL are apart in float32: log-probabilities of answers, and gradients."""
    pairs, gradients, logprobs = drawn(given)[:2], [], []
    for way in ("packed", "trl precomputed"):
        with tempfile.TemporaryDirectory() as scratch:
            trainer = opened(given, way, len(pairs), pairs, scratch)
            inputs, _ = inputs_of(trainer, way, pairs)
            logprobs.append(answers(trainer, way, inputs, pairs))
            trainer.training_step(trainer.model, inputs)
            gradients.append(torch.cat([weights.grad.flatten() for weights in trainer.model.parameters()]))
            del trainer
    return {
        "max_dlogp": float((logprobs[0] - logprobs[1]).abs().max()),
        "grad_cos": float(torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0)),
    }


@torch.no_grad()
def answers(trainer: Any, way: str, inputs: Any, pairs: list[Referred]) -> torch.Tensor:
    """Log-probabilities of the chosen and then the rejected answers."""
    if way == "packed":
        from rlhi.dpo.forward import pack

        row = pack([one.pair for one in pairs], trainer.accelerator.device)
        return row.by_answer(trainer.model(**row.inputs)).sum(1)
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    shown = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    found: torch.Tensor = trainer.model(**shown, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(1)
    return found


def drawn(given: argparse.Namespace) -> list[Referred]:
    """Random tokens; lengths as of real chats, scaled, of at most 4,096 tokens."""
    chance = random.Random(0)

    def length(part: str) -> int:
        mean, shape = LENGTHS[part]
        return max(2, min(2048, round(given.scale * chance.gammavariate(shape, mean / shape))))

    lengths = [[length(part) for part in LENGTHS] for _ in range(given.pairs)]
    ids = [[[chance.randrange(1, 30_000) for _ in range(n)] for n in own] for own in lengths]
    return [Referred(TokenizedPair(str(i), *own), -900.0, -900.0) for i, own in enumerate(ids)]


def policy_of(given: argparse.Namespace) -> Policy:
    device = torch.device(given.device)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    return Policy(
        Renderer(tokenizer(), "system"),
        ModelConfig(device=given.device),
        "random",
        device,
        dtype,
        lambda: loaded(given),
    )


def tokenizer() -> Any:
    """TRL asks for one, and for its token of padding; no text is read."""
    from tokenizers import Tokenizer, models

    raw = Tokenizer(models.WordLevel({"<end>": 0}, unk_token="<end>"))
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>")


def loaded(given: argparse.Namespace) -> Any:
    """The model, in float32 on a CPU and bfloat16 on a GPU."""
    torch.manual_seed(0)
    if given.model == "smollm2":
        return AutoModelForCausalLM.from_pretrained(str(embedded.folder()), dtype=torch.float32)
    dtype = torch.float32 if given.device == "cpu" else torch.bfloat16
    with torch.device(given.device):
        usual, _ = torch.get_default_dtype(), torch.set_default_dtype(dtype)
        try:
            return LlamaForCausalLM(shape(given))
        finally:
            torch.set_default_dtype(usual)


def shape(given: argparse.Namespace) -> LlamaConfig:
    sizes = SHAPES[given.model] | ({"num_hidden_layers": given.layers} if given.layers else {})
    small = {"tie_word_embeddings": given.model == "15m", "max_position_embeddings": 8192}
    return LlamaConfig(**{"vocab_size": 32000, **small, **sizes}, bos_token_id=None, eos_token_id=0, pad_token_id=0)


def _parameters(given: argparse.Namespace) -> int:
    """Weights that every token meets: all but the embeddings."""
    sizes = shape(given)
    head = sizes.hidden_size // sizes.num_attention_heads * sizes.num_key_value_heads
    layer = sizes.hidden_size * (2 * sizes.hidden_size + 2 * head + 3 * sizes.intermediate_size)
    return sizes.num_hidden_layers * layer + sizes.vocab_size * sizes.hidden_size


def _reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak of resident memory starts anew


def _peak(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["15m", "smollm2", "8b"], default="15m")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4], metavar="N", help="Pairs of a step.")
    parser.add_argument("--pairs", type=int, default=8, metavar="N", help="Pairs in all; a multiple of every batch.")
    parser.add_argument("--scale", type=float, default=0.4, help="Of the lengths.")
    parser.add_argument("--layers", type=int, default=None, metavar="N", help="Layers, where not all are to be.")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="Rounds of all ways.")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="Of a CPU.")
    parser.add_argument("--row-tokens", type=int, default=2048, metavar="N", help="Tokens of a packed row.")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()

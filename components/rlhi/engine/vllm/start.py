"""Starts the copies of a model in vLLM, and says in one line what hinders it."""

import gc
import json
import multiprocessing
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch

from rlhi.config import ModelConfig, VllmConfig
from rlhi.engine.models import Identified
from rlhi.engine.vllm.replica import Replica
from rlhi.engine.vllm.told import LEVEL, QUIET, Told
from rlhi.engine.vllm.watch import Watch
from rlhi.errors import InputError

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # it would tell its makers what runs here
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a process that has asked for GPUs must not be forked
    LEVEL: QUIET,
}
NEVER = 2**30  # tokens: between its first and its last, an answer is none of our business


def start(found: Identified, model: ModelConfig, settings: VllmConfig) -> list[Replica]:
    """The copies of the model, each on GPUs of its own, started side by side.

    Raises:
        InputError: vLLM cannot load the model, or the memory does not hold what it needs.
    """
    _free_gpu()
    found.fetch()
    told = Told()
    try:
        with _explained(model, told), told.listening():
            return _all(found, settings, told)
    except BaseException:
        told.close()
        raise


def _all(found: Identified, settings: VllmConfig, told: Told) -> list[Replica]:
    before = set(multiprocessing.active_children())
    with ThreadPoolExecutor(settings.data_parallel) as pool:
        started = [pool.submit(_engine, found, settings, rank) for rank in range(settings.data_parallel)]
    errors = [each.exception() for each in started]
    engines = [each.result() for each, error in zip(started, errors, strict=True) if error is None]
    watch = Watch([*set(multiprocessing.active_children()) - before], lambda: _stop(engines))
    replicas = [Replica(engine, told, watch, found.adapter) for engine in engines]
    for error in filter(None, errors):
        for replica in replicas:
            replica.close()
        raise error
    return replicas


def _stop(engines: Sequence[Any]) -> None:
    """Whoever waits for one of them is told that it is dead."""
    from vllm.v1.engine.exceptions import EngineDeadError

    for engine in engines:
        engine.engine_core.outputs_queue.put_nowait(EngineDeadError())


def _engine(found: Identified, settings: VllmConfig, rank: int) -> Any:
    args = arguments(found, settings, rank)
    from vllm.v1.engine.llm_engine import LLMEngine

    return LLMEngine.from_engine_args(args)


def arguments(found: Identified, settings: VllmConfig, rank: int = 0) -> Any:
    """vLLM's own settings (EngineArgs) for one copy of the model; it reads the environment when it is imported here."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    gpus = range(rank * settings.tensor_parallel, (rank + 1) * settings.tensor_parallel)
    return EngineArgs(
        model=found.name,
        revision=found.commit,
        skip_tokenizer_init=True,  # it gets tokens and gives tokens
        dtype=number_of(settings),
        max_model_len=-1 if settings.max_model_len is None else settings.max_model_len,
        tensor_parallel_size=settings.tensor_parallel,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        device_ids=list(gpus) if settings.data_parallel > 1 and not on_cpu else None,
        enable_prefix_caching=True,
        enable_chunked_prefill=False if on_cpu else None,  # on a CPU a request with a seed does not survive it
        generation_config="vllm",  # not the model's own: only what is asked for here
        logprobs_mode="raw_logprobs",  # of the model itself, whatever temperature and nucleus are
        stream_interval=NEVER,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **_with_adapter(found.adapter),
    )


def _with_adapter(adapter: Path | None) -> dict[str, Any]:
    """What vLLM needs to know of a LoRA adapter before it starts; it makes room for ranks of some sizes only."""
    if adapter is None:
        return {}
    from vllm.config.lora import MaxLoRARanks

    rank = json.loads((adapter / "adapter_config.json").read_text())["r"]
    room = min((size for size in get_args(MaxLoRARanks) if size >= rank), default=rank)
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}


def number_of(settings: VllmConfig) -> str:
    """The kind of number that is computed with; ``auto`` as with transformers."""
    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if torch.cuda.is_available() else "float32"


def _free_gpu() -> None:
    """Gives back the memory that a model of before had on the GPU: vLLM counts what is free."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def _explained(model: ModelConfig, told: Told) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(_way_out(model, told.reason(error))) from None


def _way_out(model: ModelConfig, reason: str) -> str:
    if re.search(r"memory|KV cache|cache blocks", reason):
        return (
            f"engine.vllm: {reason} Lower engine.vllm.max_model_len, change engine.vllm.gpu_memory_utilization, or "
            "spread the model over more GPUs with engine.vllm.tensor_parallel"
        )
    return f"model.id={model.id!r}: vllm cannot load it: {reason}"

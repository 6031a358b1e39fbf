"""Small trainings of the tiny model: by one process or two, and as a stage that can be killed."""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
import transformers.trainer
from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from rlhi.artifacts import Output
from rlhi.cli import main
from rlhi.config import ModelConfig, as_json
from rlhi.dpo import job as jobs
from rlhi.dpo import work
from rlhi.dpo.config import DpoConfig
from rlhi.dpo.job import Job
from rlhi.dpo.tokens import tokenize
from rlhi.engine.models import identify
from rlhi.execute import Call, execute
from rlhi.records import Pair
from tests.checkpoint_job import Killer
from tests.forks import FORKS, settle
from tests.rows import pair
from tests.s3_server import free_ports

Death = tuple[int, str, signal.Signals]  # steps done, the event, and what is sent
STEPS = 8


def config_of(model: Path) -> DpoConfig:
    """Eight steps in rows of which a process can have more than one or none, a checkpoint every third.

    With the usual beta this model's pairs are soon saturated, and Adam makes noise of their gradients large.
    """
    settings = DpoConfig(model=ModelConfig(id=str(model)), learning_rate=1e-2, lora_rank=4, max_tokens=400)
    settings = replace(settings, beta=0.01, batch_size=3, micro_batch_size=3, row_tokens=150)
    return replace(settings, epochs=4, checkpoint_every=3)


def rows(users: int = 4) -> list[Pair]:
    """Pairs of uneven lengths, two of a user."""
    return [
        replace(pair(f"c{n}", "Fig." * (1 + n % 3), "A fruit is a fig. " * (1 + n % 4), "Name it. " * n), user_id=user)
        for n, user in enumerate(f"user {n // 2}" for n in range(2 * users))
    ]


def written(folder: Path, pairs: Sequence[Pair]) -> Path:
    """The pairs as a stage leaves them."""

    def write(made: Output[Pair], config: object) -> None:
        made.write(pairs, [], len(pairs))

    execute(Call("rip", write, {}, {}, "made", Output(folder, Pair), DpoConfig()))
    return folder


def job_of(folder: Path, config: DpoConfig, pairs: Sequence[Pair]) -> Job:
    """The job folder of a training on all ``pairs`` but the last two, which are measured."""
    folder.mkdir(parents=True)
    job = Job(folder, config, "0f")
    _, tokens, _ = tokenize(pairs, identify(config.model).renderer, config.max_tokens)
    jobs.write(job, tokens[:-2], tokens[-2:])
    return job


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What was trained, of a job's ``trained`` or a stage's output."""
    (path,) = [path for name in ("adapter", "weights") for path in (folder / name).glob("*.safetensors")]
    return load_file(path)


def same(made: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> bool:
    """Whether weights are equal, bit for bit."""
    return made.keys() == expected.keys() and all(torch.equal(made[name], expected[name]) for name in made)


def history(folder: Path) -> list[dict[str, float]]:
    """The rows of a training's history."""
    found: list[dict[str, float]] = json.loads((folder / "history.json").read_text())
    return found


def works(place: str, scratch: Path, count: int, dies: Death | None = None, sharded: bool = True) -> list[int | None]:
    """``python -m rlhi.dpo.work PLACE`` in so many processes, as torchrun starts them; only the last one ``dies``.

    A process that is killed takes the others with it, as torchrun sees to. Several are ``sharded`` as they are on GPUs.
    """
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0]), "LOCAL_WORLD_SIZE": str(count)}
    shared = {**_outside(), **where, "WORLD_SIZE": str(count)}
    started = []
    for rank in range(count):
        env = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        last = dies if rank == count - 1 else None
        started.append(
            FORKS.Process(target=_work, args=(place, env if count > 1 else _outside(), scratch, last, sharded))
        )
        started[-1].start()
    started[-1].join(60)
    for each in started:
        each.join(2 if started[-1].exitcode else 60)
        each.kill()
        each.join()
    return [each.exitcode for each in started]


def _outside() -> dict[str, str]:
    """What a test has set for processes that start."""
    return {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "RLHI_"))}


def _work(place: str, env: Mapping[str, str], scratch: Path, dies: Death | None, sharded: bool) -> None:
    _prepare(env, scratch, dies)
    if "RANK" not in env:
        sys.exit(work.main([place]))
    if sharded:
        _shard()
    code = work.main([place])
    sys.exit(3 if (AcceleratorState().distributed_type == DistributedType.FSDP) is not sharded else code)


def _shard() -> None:
    """Accelerate shards on GPUs only and makes copies on a CPU, though torch can shard there too."""
    usual = PartialState.set_device

    def set_device(self: Any) -> None:
        usual(self)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.set_device = set_device


def _prepare(env: Mapping[str, str], scratch: Path, dies: Death | None) -> None:
    settle(env)
    torch.set_num_threads(1)
    scratch.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(scratch)  # where a killed process leaves its folders
    if dies is not None:
        transformers.trainer.DEFAULT_CALLBACKS.append(Killer(*dies))


@dataclass(frozen=True)
class Stage:
    """``rlhi dpo`` on ``pairs``; ``given`` are further inputs by name."""

    pairs: Path
    out: Path
    config: DpoConfig
    given: Mapping[str, Path] = field(default_factory=dict)

    @property
    def argv(self) -> list[str]:
        """The command line."""
        inputs = [part for name, path in self.given.items() for part in (f"--{name}", str(path))]
        return ["dpo", "--pairs", str(self.pairs), *inputs, "--model", str(self.out), "--config", as_json(self.config)]

    @property
    def scratch(self) -> Path:
        """Where its temporary folders are."""
        return self.out.with_name(f"{self.out.name}-scratch")

    def start(self, dies: Death | None = None) -> ForkServerProcess:
        """A process that runs it."""
        process = FORKS.Process(target=_stage, args=(self.argv, _outside(), self.scratch, dies))
        process.start()
        return process

    def finish(self, dies: Death | None = None) -> int | None:
        """Runs it; gives the exit code."""
        process = self.start(dies)
        process.join(60)
        return process.exitcode


def _stage(argv: list[str], env: Mapping[str, str], scratch: Path, dies: Death | None) -> None:
    _prepare(env, scratch, dies)
    sys.exit(main(argv))

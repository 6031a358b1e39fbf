"""One process of a training: ``python -m rlhi.dpo.work FOLDER``; torchrun says which of how many it is.

The folder may be on S3. What is wrong with the input is the last line on stderr, and the exit code 2.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object

from rlhi.dpo import job as jobs
from rlhi.dpo.checkpoints import ranks
from rlhi.dpo.checkpoints.kept import REMOTE
from rlhi.dpo.config import DpoConfig
from rlhi.dpo.forward import check
from rlhi.dpo.job import Job
from rlhi.dpo.reference import Scores, reference, sampled
from rlhi.dpo.tokens import TokenizedPair
from rlhi.dpo.train import train
from rlhi.dpo.trainer import Referred
from rlhi.engine.models import Policy, device_of, load_policy, trained_in
from rlhi.errors import InputError
from rlhi.progress import silent

ALL = ("train", "validation")


def work(job: Job) -> None:
    """Reference log-probabilities, training, and what is left in the job's folder."""
    meet(job.config)
    given = {"train": job.train(), "validation": job.validation()}
    pairs = list(chain(*given.values()))
    scores = iter(refer(job, pairs) if job.config.refers else [(0.0, 0.0)] * len(pairs))
    referred = {name: [Referred(pair, *next(scores)) for pair in given[name]] for name in ALL}
    trained = train(job, referred["train"], referred["validation"])
    if PartialState().is_main_process:
        job.leave("speed", {"tokens/trained_per_s": trained.tokens_per_s} if trained.tokens_per_s else {})
        job.leave("validation", [asdict(one) for one in trained.validated])
    PartialState().wait_for_everyone()


def meet(config: DpoConfig) -> None:
    """Brings the processes together."""
    PartialState(cpu=device_of(config.model) == "cpu")


def refer(job: Job, pairs: Sequence[TokenizedPair]) -> list[Scores]:
    """Log-probabilities under the reference, in nats; each process computes its share of what is not known yet."""
    state, config = PartialState(), job.config
    policy = reference_policy(config, job.model("reference"))
    if config.packing == "on":
        check(policy.model)  # before hours of reference log-probabilities
    score = partial(reference, policy, row_tokens=config.row_tokens)
    if config.sampled_reference:
        return sampled(pairs, score)
    numbers = range(state.process_index, len(pairs), state.num_processes)
    mine = list(zip(numbers, score([pairs[i] for i in numbers]), strict=True))
    everyone = dict(gather_object(mine))
    return [everyone[i] for i in range(len(pairs))]


def reference_policy(config: DpoConfig, folder: Path | None) -> Policy:
    """The base model, or the model in ``folder``: an adapter for it, or weights of their own."""
    return load_policy(config.model, trained_in(folder))


@contextmanager
def borrowed(place: str) -> Iterator[Job]:
    """The job of a copy on S3, in a folder that the processes of a node share, as they do one on their disk."""
    with tempfile.TemporaryDirectory() as own:
        meet(jobs.config_of(place))
        folder = Path(ranks.from_leader(own))
        if folder == Path(own):
            jobs.borrow(place, folder)
        ranks.barrier()
        yield jobs.read(folder, place)


def main(given: Sequence[str]) -> int:
    """The command; gives the exit code."""
    (place,) = given
    quiet = nullcontext() if ranks.number("RANK", 0) == 0 else silent()
    try:
        with quiet, borrowed(place) if place.startswith(REMOTE) else nullcontext(jobs.read(Path(place))) as job:
            work(job)
            if job.copy is not None and PartialState().is_main_process:
                jobs.give_back(job, place)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Starts the work of dpo: in this process, in several of this machine, or on several nodes of a cluster.

| nodes | processes | how |
|---|---|---|
| 1 | 1 | in this process: torch is loaded once |
| 1 | more | torchrun, on loopback; one process for each GPU |
| more | any | a `TrainJob` of Kubeflow Trainer (`rlhi.dpo.trainjob`) |

The work reads a job folder and leaves its result there, so that where it was done makes no difference to who reads it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rlhi.dpo.torchrun import torchrun
from rlhi.dpo.trainjob.config import TrainJobConfig
from rlhi.errors import InputError

MODULE = "rlhi.dpo.work"


@dataclass(frozen=True)
class Work:
    """One training: its job folder, what tells it from others, and by how many processes of how many nodes.

    ``fingerprint`` (hex digits) is the same when the same work is started again, and of no other work.
    """

    job: str
    fingerprint: str
    nodes: int = 1
    processes: int = 1  # on each node


@contextmanager
def launch(work: Work, here: Callable[[], None], cluster: TrainJobConfig) -> Iterator[None]:
    """Does the work; it is done when the body begins, which reads the result out of the job folder.

    ``here`` does it in this process. What was made for it in a cluster is taken away after the body, not before.

    Raises:
        InputError: bad input, as the work or the cluster says it.
        RuntimeError: one of several processes failed; with its last words.
    """
    if work.nodes > 1:
        _check_shared(work)
        from rlhi.dpo.trainjob.run import trained

        with trained(work, cluster):
            yield
        return
    if work.processes > 1:
        torchrun(MODULE, work.job, work.processes)
    else:
        here()
    yield


def processes(asked: int | None, nodes: int, cluster: TrainJobConfig) -> int:
    """How many processes a node has: as ``asked``, else one for each of its GPUs, else one."""
    if asked is not None:
        return asked
    if nodes > 1:
        return cluster.gpus or 1
    import torch

    return torch.cuda.device_count() or 1


def _check_shared(work: Work) -> None:
    if not work.job.startswith("s3://"):
        raise InputError(
            f"dpo.nodes={work.nodes}: the nodes share no disk, and {work.job} is on one; set RLHI_CHECKPOINTS to"
            " s3://bucket/prefix, or train on one node"
        )

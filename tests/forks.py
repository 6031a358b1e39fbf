"""Processes that start at once: the server that forks them has imported what takes ten seconds to import.

There is one such server for all tests of a process, and it starts once: whoever forks shares this list.
"""

import os
from collections.abc import Mapping
from multiprocessing import get_context

from rlhi.cli import STAGES

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *(f"rlhi.{stage}.stage" for stage in STAGES),
        "rlhi.dpo.work",
        "rlhi.dpo.tell",
        "rlhi.engine.scripted",
        "rlhi.engine.s3.store",
        "pyarrow.dataset",
        "pandas",
        "tests.checkpoint_job",
        "tests.test_resume",
        "tests.dpo_runs",
    ]
)


def settle(environment: Mapping[str, str]) -> None:
    """Has a process that was forked see what its test has set, and not the test in which the server started."""
    for name in [name for name in os.environ if name.startswith(("RLHI_", "AWS_", "MLFLOW_"))]:
        del os.environ[name]
    os.environ.update(environment)

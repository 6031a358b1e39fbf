"""Several training processes on this machine, by torchrun.

torchrun meets its processes on loopback, passes a signal on to them, and ends all when one of them fails. What they say
is shown as they say it. Nothing of them is left when this process ends, however it ends: who is told to go (SIGTERM,
Ctrl-C) tells torchrun and waits for it, within the half minute that Kubernetes grants; of who is killed, a shell that
waits for just that tells torchrun.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rlhi.errors import InputError

GRACE = 20  # seconds that the processes have to end, of the 30 that Kubernetes gives the pod
WORDS = 20  # lines of a process that failed
_SAID = re.compile(r"\[default(\d+)\]:(.*)")
_FAILED = re.compile(r"rank +: (\d+) .*\n +exitcode +: (-?\d+)")


def torchrun(module: str, job: str, processes: int) -> None:
    """Runs ``python -m MODULE JOB`` in so many processes, each with torchrun's variables.

    Raises:
        InputError: a process ended with a line ``error: …``, or was killed.
        RuntimeError: one ended otherwise; its last lines.
    """
    with tempfile.TemporaryDirectory(prefix="rlhi-torchrun-") as logs:
        with _agent(_arguments(module, job, processes, logs), processes) as agent:
            own = [line for line in _lines(agent) if not _shown(line)]
            code = agent.wait()
        if code:
            raise _failure(own, Path(logs), processes)


def _arguments(module: str, job: str, processes: int, logs: str) -> list[str]:
    options = {
        "nnodes": 1,
        "nproc-per-node": processes,
        "local-addr": "127.0.0.1",  # the host's own name need not lead anywhere
        "log-dir": logs,
        "tee": 3,  # standard output and error, into the logs and to us
        "shutdown-timeout": GRACE,
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", *given, "-m", module, job]


@contextmanager
def _agent(argv: Sequence[str], processes: int) -> Iterator["subprocess.Popen[str]"]:
    """torchrun, in a session of its own: a Ctrl-C of the terminal reaches it through us, once."""
    cores = max(1, (os.cpu_count() or 1) // processes)
    env = {"OMP_NUM_THREADS": str(cores), **os.environ, "PYTHONUNBUFFERED": "1"}
    agent = subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        with _told_of_our_end(agent):
            yield agent
    finally:
        if agent.poll() is None:
            agent.terminate()
            for line in _lines(agent):
                _shown(line)
            agent.wait()
        if agent.stdout is not None:
            agent.stdout.close()


@contextmanager
def _told_of_our_end(agent: "subprocess.Popen[str]") -> Iterator[None]:
    argv = ["/bin/sh", "-c", 'read _; kill -TERM "$1"', "watch", str(agent.pid)]
    watch = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        watch.kill()
        watch.communicate()


def _lines(agent: "subprocess.Popen[str]") -> Iterator[str]:
    return iter(agent.stdout or ())


def _shown(line: str) -> bool:
    """Passes on what a process says; what torchrun says itself is no line of a process and is not shown."""
    said = _SAID.match(line)
    if said is not None:
        rank, text = said.groups()
        sys.stderr.write(f"{text}\n" if rank == "0" else f"[{rank}] {text}\n")
    return said is not None


def _failure(own: Sequence[str], logs: Path, processes: int) -> Exception:
    codes = {int(rank): int(code) for rank, code in _FAILED.findall("".join(own))}
    if not codes:
        return RuntimeError(f"torchrun failed; its last words:\n{_last(own)}")
    rank = _first(codes, logs)
    with _log(logs, rank).open(errors="replace") as written:
        lines = written.readlines()
    if lines and lines[-1].startswith("error: "):
        return InputError(lines[-1].removeprefix("error: ").strip())
    which = f"process {rank} of {processes}"
    if codes[rank] == -9:
        return InputError(
            f"{which} was killed, most often for want of memory; lower dpo.row_tokens, or give it more memory"
        )
    return RuntimeError(f"{which} ended with {codes[rank]}; its last words:\n{_last(lines)}")


def _first(codes: dict[int, int], logs: Path) -> int:
    """Who failed first: of those that torchrun did not itself end, the first to fall silent.

    When one goes, those that were talking to it fail too, within the same second; torchrun knows no more than seconds.
    """
    failed = [rank for rank, code in codes.items() if code != -15] or list(codes)
    return min(failed, key=lambda rank: _log(logs, rank).stat().st_mtime_ns)


def _log(logs: Path, rank: int) -> Path:
    return next(logs.glob(f"*/attempt_0/{rank}/stderr.log"))


def _last(lines: Sequence[str]) -> str:
    return "".join(lines[-WORDS:]).rstrip()

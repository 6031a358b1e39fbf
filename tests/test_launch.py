import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhi.dpo.launch import Work, launch, processes
from rlhi.dpo.torchrun import torchrun
from rlhi.dpo.trainjob.config import TrainJobConfig
from rlhi.errors import InputError

CLUSTER = TrainJobConfig()
# a training that adds up the ranks of all its processes, and says so
SUMS = """
import os, sys, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1])
dist.all_reduce(total)
print("rank", dist.get_rank(), "of", dist.get_world_size(), "sums", total.item())
if dist.get_rank() == 0:
    open(os.path.join(sys.argv[1], "sum"), "w").write(str(total.item()))
dist.destroy_process_group()
"""
# one whose second process ends while the first waits for it, and so fails too
BREAKS = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
if dist.get_rank() == 1:
    raise ArithmeticError("the loss is not a number")
dist.all_reduce(torch.tensor([1]))
"""
# one whose second process ends as the test says
ENDS = """
import os, signal, sys, time
if os.environ["RANK"] == "1":
    {end}
time.sleep(600)
"""
# one that does not end by itself, and says that it was told to go
WAITS = """
import os, signal, sys, time
rank = os.environ["RANK"]
def told(*_):
    time.sleep(0.2)
    open(os.path.join(sys.argv[1], "told" + rank), "w").close()
    print("bye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
open(os.path.join(sys.argv[1], "pid" + rank), "w").write(str(os.getpid()))
time.sleep(600)
"""
HERE = """
import signal, sys
from rlhi.dpo.torchrun import torchrun
signal.signal(signal.SIGTERM, signal.default_int_handler)
torchrun("tiny_worker", sys.argv[1], 2)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the text a module that processes which start from here can import."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))

    def write(text: str) -> None:
        (tmp_path / "tiny_worker.py").write_text(text)

    return write


def test_one_process_works_in_this_one() -> None:
    done = []
    with launch(Work("job", "ab"), lambda: done.append(os.getpid()), CLUSTER):
        assert done == [os.getpid()]


def test_number_of_processes_is_as_asked_and_one_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert processes(3, 1, CLUSTER) == 3
    assert processes(None, 1, CLUSTER) == 1


def test_job_folder_on_a_disk_is_refused_for_several_nodes(tmp_path: Path) -> None:
    work = Work(str(tmp_path), "ab", nodes=2)
    with pytest.raises(InputError, match="set RLHI_CHECKPOINTS to s3://"), launch(work, _not_here, CLUSTER):
        pass


@pytest.mark.parametrize(
    ("variable", "value"), [("KUBECONFIG", "/no/such/file"), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")]
)
def test_several_nodes_without_a_cluster_are_refused(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv(variable, value)
    work = Work("s3://bucket/job", "ab", nodes=2)
    with pytest.raises(InputError, match="need a Kubernetes cluster"), launch(work, _not_here, CLUSTER):
        pass


def test_two_processes_meet_and_are_heard(
    worker: Callable[[str], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    worker(SUMS)
    torchrun("tiny_worker", str(tmp_path), 2)
    assert (tmp_path / "sum").read_text() == "3"
    assert sorted(capfd.readouterr().err.splitlines()) == ["[1] rank 1 of 2 sums 3", "rank 0 of 2 sums 3"]


@pytest.mark.slow
def test_process_that_fails_first_is_named_with_its_last_words(worker: Callable[[str], None], tmp_path: Path) -> None:
    worker(BREAKS)
    with pytest.raises(RuntimeError, match=r"(?s)process 1 of 2 ended with 1; .*ArithmeticError: the loss is not"):
        torchrun("tiny_worker", str(tmp_path), 2)


def test_bad_input_in_a_process_is_one_line_for_the_user(worker: Callable[[str], None], tmp_path: Path) -> None:
    worker(ENDS.format(end="sys.exit('error: pair p1: no answer')"))
    with pytest.raises(InputError, match=r"^pair p1: no answer$"):
        torchrun("tiny_worker", str(tmp_path), 2)


@pytest.mark.slow
def test_process_that_was_killed_points_to_memory(worker: Callable[[str], None], tmp_path: Path) -> None:
    worker(ENDS.format(end="os.kill(os.getpid(), signal.SIGKILL)"))
    with pytest.raises(InputError, match=r"process 1 of 2 was killed, .*lower dpo\.row_tokens"):
        torchrun("tiny_worker", str(tmp_path), 2)


@pytest.mark.slow
def test_work_that_is_no_module_is_told(worker: Callable[[str], None], tmp_path: Path) -> None:
    worker("")
    with pytest.raises(RuntimeError, match="No module named no_such_worker"):
        torchrun("no_such_worker", str(tmp_path), 2)


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_no_process_outlives_the_one_that_started_it(
    how: signal.Signals, worker: Callable[[str], None], tmp_path: Path
) -> None:
    worker(WAITS)
    process = subprocess.Popen([sys.executable, "-c", HERE, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    pids = [int(_once_there(tmp_path / f"pid{rank}")) for rank in (0, 1)]
    process.send_signal(how)
    try:
        said = process.communicate(timeout=60)[1]  # torchrun itself waits half a minute for its workers
    finally:
        process.kill()
        process.communicate()
    if how != signal.SIGKILL:
        assert process.returncode != 0
        assert sorted(line for line in said.splitlines() if line.endswith("bye")) == ["[1] bye", "bye"]
        assert not any(map(_lives, pids))
    for rank in (0, 1):
        _once_there(tmp_path / f"told{rank}", empty=True)
    _wait_for(lambda: not any(map(_lives, pids)))


def _not_here() -> None:
    pytest.fail("did the work in this process")


def _once_there(path: Path, empty: bool = False) -> str:
    _wait_for(lambda: path.exists() and (empty or path.read_text() != ""))
    return path.read_text()


def _wait_for(happens: Callable[[], bool]) -> None:
    ends = time.monotonic() + 25
    while not happens():
        assert time.monotonic() < ends, "did not happen in time"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

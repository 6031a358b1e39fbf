"""What of the engine in vLLM needs no vLLM; the engine itself is tested by `make vllm`."""

import importlib.util
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from subprocess import PIPE

import pytest
import torch

from rlhi.config import EngineConfig, ModelConfig
from rlhi.engine import open_engine
from rlhi.engine.vllm.together import Shared, together
from rlhi.engine.vllm.told import Told
from rlhi.errors import InputError

WATCHED = """
import multiprocessing, sys, time
from rlhi.engine.vllm.watch import Watch
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
watch = Watch([child], lambda: print("ended", flush=True))
if "end" in sys.argv: watch.end()
print(child.pid, flush=True)
sys.stdin.read()
"""


def numbers(shared: Shared[int], ended: list[str]) -> Generator[int, None, None]:
    try:
        for some in shared:
            yield from some
    finally:
        ended.append(threading.current_thread().name)


def test_iterators_together_give_everything_once() -> None:
    ended: list[str] = []
    shared = Shared(iter(range(100)), 7)
    assert sorted(together([numbers(shared, ended) for _ in range(3)])) == list(range(100))
    assert ended == ["rlhi-vllm"] * 3


def test_neighbours_stay_together() -> None:
    assert list(Shared(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]


def test_one_that_fails_ends_them_all() -> None:
    def failing() -> Generator[int, None, None]:
        yield 1
        raise InputError("no more")

    ended: list[str] = []
    with pytest.raises(InputError, match="no more"):
        list(together([failing(), numbers(Shared(iter(range(10**9)), 1), ended)]))
    assert len(ended) == 1


def test_closed_early_they_end() -> None:
    ended: list[str] = []
    found = together([numbers(Shared(iter(range(10**9)), 1), ended) for _ in range(2)])
    next(found)
    found.close()
    assert len(ended) == 2


@pytest.mark.parametrize(("flag", "lives"), [("stay", False), ("end", True)])
def test_watched_process_ends_with_the_one_that_is_killed(flag: str, lives: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", WATCHED, flag], stdin=PIPE, stdout=PIPE) as own:
        assert own.stdout is not None
        child = int(own.stdout.readline())
        reader = os.pidfd_open(child)
        own.kill()
    try:
        ended = _ends_within(reader, 0.3 if lives else 10)
        assert ended is not lives
    finally:
        if lives:
            signal.pidfd_send_signal(reader, signal.SIGKILL)
        os.close(reader)


def test_end_of_a_watched_process_is_told() -> None:
    with subprocess.Popen([sys.executable, "-c", WATCHED, "stay"], stdin=PIPE, stdout=PIPE) as own:
        assert own.stdout is not None
        os.kill(int(own.stdout.readline()), signal.SIGKILL)
        assert own.stdout.readline() == b"ended\n"


def _ends_within(pidfd: int, seconds: float) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])


def test_cause_is_the_first_error_that_was_told(capfd: pytest.CaptureFixture[str]) -> None:
    told = Told()
    with told.listening():
        argv = ["echo", "(Worker pid=7) ERROR 11-26 [x.py:1] ValueError: No available memory for the cache blocks."]
        subprocess.run(argv, check=True)
        subprocess.run(["echo", "RuntimeError: Engine core initialization failed. See above."], check=True)
    echo = RuntimeError("Engine core initialization failed. See root cause above.")
    assert told.reason(echo) == "No available memory for the cache blocks."
    assert told.reason(ValueError("1 validation error for X\n  too long\nmore")) == "too long"
    told.close()
    assert capfd.readouterr() == ("", "")


def test_what_vllm_says_is_shown_to_who_asks(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    told = Told()
    with told.listening():
        subprocess.run(["echo", "loading"], check=True)
    assert "to see all" in told.cause()
    told.close()
    assert capfd.readouterr().out == "loading\n"


def test_vllm_that_is_not_installed_is_said_so(tiny_model: Path) -> None:
    with pytest.raises(InputError, match=r"^engine.kind='vllm': vllm is not installed: pip install 'rlhi\[vllm\]'$"):
        open_engine(EngineConfig(kind="vllm", model=ModelConfig(id=str(tiny_model))))


def test_auto_is_vllm_where_it_and_a_gpu_are(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = EngineConfig(model=ModelConfig(id=str(tiny_model)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert "transformers" in open_engine(config).identity
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert open_engine(config).identity.startswith("vllm ")  # nothing is loaded yet
    pinned = EngineConfig(model=ModelConfig(id=str(tiny_model), device="cpu"))
    assert "transformers" in open_engine(pinned).identity

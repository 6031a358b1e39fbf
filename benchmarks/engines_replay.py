"""How fast a repeated run gets its replies out of the store.

    python benchmarks/engines_replay.py

Two processes ask the scripted engine for the same 20,000 replies: the first fills the store, the second should send
nothing. Prints what each took, and as its last line one JSON object.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rlhi.config import SamplingConfig
from rlhi.engine import Request, generate, tally, with_store
from rlhi.engine.scripted import ScriptedEngine
from rlhi.records import Message

SAMPLES = 1  # per request; with more, a request is digested once for all of them
CONTEXT = "What the user said before, at the length of a usual message. " * 20
ANSWER = "An answer of some length, as a small model gives it. " * 20


def main() -> None:
    """Runs it twice, prints a line and at last one JSON object."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--replies", type=int, default=20_000, help="that are asked for, twice [20000]")
    count = made.parse_args().replies
    with tempfile.TemporaryDirectory(prefix="rlhi-benchmark-") as folder:
        store = Path(folder) / "replies.sqlite"
        first, _ = in_process(store, count)
        again, asked = in_process(store, count)
    sys.stdout.write(f"first run: {count / first:,.0f} replies/s stored; again: {count / again:,.0f} replies/s\n")
    sys.stdout.write(json.dumps({"replayed_per_s": round(count / again), "requests_on_replay": asked}) + "\n")


def in_process(store: Path, count: int) -> tuple[float, int]:
    """A run in a process of its own: seconds of asking, and requests that reached the engine."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, str(store), count).result()


def run(store: str, count: int) -> tuple[float, int]:
    os.environ["RLHI_REPLIES"] = store
    requests = [
        Request(f"r{i}", (Message("user", f"{CONTEXT}{i}"),), f"- likes the number {i % 100}")
        for i in range(count // SAMPLES)
    ]
    started = time.perf_counter()
    found = generate(
        with_store(ScriptedEngine(lambda request, number: f"{ANSWER}{request.key} {number}")),
        requests,
        SamplingConfig(),
        SAMPLES,
        0,
    )
    seconds = time.perf_counter() - started
    if [reply.text for reply in found[-1]] != [f"{ANSWER}{requests[-1].key} {number}" for number in range(SAMPLES)]:
        raise RuntimeError("a reply came back changed")
    return seconds, int(tally.count("asked"))


if __name__ == "__main__":
    main()

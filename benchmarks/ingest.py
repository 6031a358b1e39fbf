"""How fast ingest reads WildChat-shaped logs, beside decoding alone and beside Hugging Face datasets.

    python benchmarks/ingest.py            200,000 conversations (about 1 GB, made in a temporary folder)
    python benchmarks/ingest.py --full     1,000,000

Decoding alone is what cannot be avoided: the same columns out of Parquet into Arrow, on one core, and thrown away.
Every figure is of a process of its own; the three take turns, and of each the median round is told. `ratio_to_decode`
compares wall time; `cpu_ratio_to_decode` the CPU time of all threads, in which reading ahead gains nothing.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from wildchat_shaped import make

GIB = 1 << 30
DATASETS_ROWS = 20_000  # a rate needs no more, and it is slow


def main() -> None:
    """Makes the data, runs every way in turn, prints a line each and at last one JSON object."""
    given = _parser().parse_args()
    if given.one is not None:
        sys.stdout.write(json.dumps(measured(WAYS[given.one], given.data)) + "\n")
        sys.stdout.flush()
        os._exit(0)  # a stream that was left early still has threads, which now and then abort Python's own exit
    rows = given.rows or (1_000_000 if given.full else 200_000)
    with tempfile.TemporaryDirectory(prefix="rlhi-benchmark-") as folder:
        data = given.data or Path(folder) / "logs"
        if not data.exists():
            make(data, rows)
        rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(given.rounds):
            for way in WAYS:
                rounds[way].append(_in_process(way, data))
    for way, found in rounds.items():
        shown = ", ".join(f"{each['rows_per_s']:,.0f}" for each in found)
        sys.stdout.write(f"{way:<10} rows/s: {shown}; peak {max(each['peak_rss_gib'] for each in found):.2f} GiB\n")
    sys.stdout.write(json.dumps(summary(rounds)) + "\n")


def summary(rounds: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """The median of every figure, and the ratios within rounds."""
    middle = {way: {name: _median(found, name) for name in found[0]} for way, found in rounds.items()}
    pairs = list(zip(rounds["ingest"], rounds["decode"], strict=True))
    return {
        "rows": middle["ingest"]["rows"],
        "rows_per_s": round(middle["ingest"]["rows_per_s"]),
        "decode_only_rows_per_s": round(middle["decode"]["rows_per_s"]),
        "datasets_rows_per_s": round(middle["datasets"]["rows_per_s"]),
        "ratio_to_decode": round(statistics.median(a["rows_per_s"] / b["rows_per_s"] for a, b in pairs), 3),
        "cpu_ratio_to_decode": round(statistics.median(a["rows_per_cpu_s"] / b["rows_per_cpu_s"] for a, b in pairs), 3),
        "peak_rss_gib": round(max(each["peak_rss_gib"] for each in rounds["ingest"]), 3),
    }


def measured(prepare: Callable[[Path], Callable[[], int]], data: Path) -> dict[str, float]:
    """Runs one way in this process: imports are not counted, the peak of memory is the whole process's."""
    way = prepare(data)
    started, used = time.perf_counter(), time.process_time()
    rows = way()
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    return {"rows": rows, "rows_per_s": rows / seconds, "rows_per_cpu_s": rows / cpu, "peak_rss_gib": peak}


def decode(data: Path) -> Callable[[], int]:
    """Rows of the columns that ingest needs, decoded into Arrow on one core."""
    import pyarrow.parquet as pq

    from rlhi.ingest import wildchat

    def rows_of(path: Path) -> int:
        parquet = pq.ParquetFile(path)
        columns = wildchat.columns(parquet, path.name, with_agent=False)
        batches = parquet.iter_batches(batch_size=wildchat.ROWS, columns=columns, use_threads=False)
        return sum(len(batch) for batch in batches)

    return lambda: sum(map(rows_of, sorted(data.glob("*.parquet"))))


def ingest(data: Path) -> Callable[[], int]:
    """The stage with its default settings: filters, redaction, split, Parquet on disk."""
    from rlhi.artifacts import Output
    from rlhi.config import Secret
    from rlhi.ingest.config import IngestConfig
    from rlhi.ingest.stage import run
    from rlhi.progress import silent
    from rlhi.records import Conversation

    def way() -> int:
        with (
            silent(),
            tempfile.TemporaryDirectory(prefix="rlhi-benchmark-") as folder,
            Output(Path(folder) / "out", Conversation) as output,
        ):
            run(str(data), output, IngestConfig(), Secret("benchmark"))
            return output.rows_in

    return way


def datasets(data: Path) -> Callable[[], int]:
    """The first rows of the same columns, streamed by Hugging Face datasets as Python objects."""
    from datasets import load_dataset

    columns = ["hashed_ip", "conversation_hash", "model", "timestamp", "language", "conversation"]
    files = str(data / "*.parquet")
    stream = load_dataset("parquet", data_files=files, split="train", streaming=True, columns=columns)
    return lambda: sum(1 for _ in islice(stream, DATASETS_ROWS))


WAYS = {"decode": decode, "ingest": ingest, "datasets": datasets}


def _in_process(way: str, data: Path) -> dict[str, float]:
    argv = [sys.executable, __file__, "--one", way, "--data", str(data)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _median(found: list[dict[str, float]], name: str) -> float:
    return statistics.median(each[name] for each in found)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--full", action="store_true", help="1,000,000 conversations instead of 200,000")
    made.add_argument("--rows", type=int, help="another number of conversations")
    made.add_argument("--rounds", type=int, default=3, help="how often each way runs [3]")
    made.add_argument("--data", type=Path, help="a folder with WildChat's Parquet files; made there if it is missing")
    made.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    main()

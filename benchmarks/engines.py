"""How fast the engines are: a server's client, the store of replies, and vLLM's prefix cache, all in one run.

    python benchmarks/engines.py                   some five minutes
    python benchmarks/engines.py --without vllm    where `make install-vllm` has not been run

Runs its three parts one after the other, each of which is a program of its own that says what it measures, and prints
their lines as they come. The last line is one JSON object:

    client_rps, aiohttp_rps, openai_rps     requests/s of our client, bare aiohttp, the openai package (engines_http.py)
    replayed_per_s, requests_on_replay      a repeated run out of the store, and what it still sends (engines_replay.py)
    prefix_cached_share, prefix_speedup     a shared prompt that is warmed, on vLLM's CPU backend (engines_vllm.py)
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VLLM = HERE.parent / ".venv-vllm" / "bin" / "python"  # its torch is another one, so it has an environment of its own
KEYS = {
    "http": ("client_rps", "aiohttp_rps", "openai_rps"),
    "replay": ("replayed_per_s", "requests_on_replay"),
    "vllm": ("prefix_cached_share", "prefix_speedup"),
}


def main() -> None:
    """Runs every part that is not left out; the figures of one that is are null."""
    given = _parser().parse_args()
    if "vllm" not in given.without and not VLLM.exists():
        sys.exit(f"{VLLM}: not there; make install-vllm, or leave this part out: --without vllm")
    flags = {
        "http": ["--requests", str(given.requests), "--rounds", str(given.rounds)],
        "replay": ["--replies", str(given.requests)],
        "vllm": [],
    }
    found: dict[str, Any] = {}
    for part, keys in KEYS.items():
        figures = {} if part in given.without else run(part, flags[part])
        found |= {key: figures.get(key) for key in keys}
    sys.stdout.write(json.dumps(found) + "\n")


def run(part: str, flags: list[str]) -> dict[str, Any]:
    """The figures in the last line of one part; the lines before it are passed on."""
    argv = [str(VLLM if part == "vllm" else sys.executable), str(HERE / f"engines_{part}.py"), *flags]
    last = "{}"
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("{"):
                last = line
            else:
                sys.stdout.write(line)
                sys.stdout.flush()
    if process.returncode:
        sys.exit(f"engines_{part}.py: ended with {process.returncode}; see above")
    figures: dict[str, Any] = json.loads(last)
    return figures


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--requests", type=int, default=20_000, help="sent in a round, and replies replayed [20000]")
    made.add_argument("--rounds", type=int, default=3, help="how often each client runs; the median counts [3]")
    made.add_argument("--without", choices=KEYS, action="append", default=[], help="leaves a part out")
    return made


if __name__ == "__main__":
    main()

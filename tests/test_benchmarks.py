"""The benchmarks run and end with their figures; how fast they are is no test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_ingest_tells_its_figures_and_leaves_nothing(tmp_path: Path) -> None:
    argv = [sys.executable, str(ROOT / "benchmarks" / "ingest.py"), "--rows", "3000", "--rounds", "1"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env={**_env(), "TMPDIR": str(tmp_path)})
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rows"] == 3000
    named = {"rows_per_s", "decode_only_rows_per_s", "datasets_rows_per_s", "ratio_to_decode", "peak_rss_gib"}
    assert named <= found.keys()
    assert 0 < found["peak_rss_gib"] < 1
    assert list(tmp_path.iterdir()) == []


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "components")}

"""The benchmarks run and end with their figures; how fast they are is no test."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ENGINES = ROOT / "benchmarks" / "engines.py"


@pytest.mark.slow
def test_ingest_tells_its_figures_and_leaves_nothing(tmp_path: Path) -> None:
    argv = [sys.executable, str(ROOT / "benchmarks" / "ingest.py"), "--rows", "3000", "--rounds", "1"]
    found = figures(argv, tmp_path)
    assert found["rows"] == 3000
    named = {"rows_per_s", "decode_only_rows_per_s", "datasets_rows_per_s", "ratio_to_decode", "peak_rss_gib"}
    assert named <= found.keys()
    assert 0 < found["peak_rss_gib"] < 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_engines_run_in_one_go_and_end_with_their_figures(tmp_path: Path) -> None:
    argv = [sys.executable, str(ENGINES), "--without", "vllm", "--requests", "600", "--rounds", "1"]
    found = figures(argv, tmp_path)
    assert list(found) == [
        *("client_rps", "aiohttp_rps", "openai_rps", "replayed_per_s", "requests_on_replay"),
        *("prefix_cached_share", "prefix_speedup"),
    ]
    assert all(found[name] > 0 for name in ("client_rps", "aiohttp_rps", "openai_rps", "replayed_per_s"))
    assert found["requests_on_replay"] == 0
    assert (found["prefix_cached_share"], found["prefix_speedup"]) == (None, None)
    assert list(tmp_path.iterdir()) == []


def test_part_that_cannot_run_is_said_before_anything_runs(tmp_path: Path) -> None:
    alone = tmp_path / "benchmarks" / ENGINES.name
    alone.parent.mkdir()
    shutil.copy(ENGINES, alone)
    done = subprocess.run([sys.executable, str(alone)], check=False, capture_output=True, text=True, env=_env())
    assert done.returncode == 1
    assert "make install-vllm" in done.stderr
    assert "--without vllm" in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_reward_tells_how_near_packed_scores_are(tmp_path: Path) -> None:
    argv = [sys.executable, str(ROOT / "benchmarks" / "reward.py"), "--answers", "2", "--rounds", "1"]
    found = figures(argv, tmp_path)
    assert {"speedup_random", "speedup_sorted"} <= found.keys()
    assert found["token_ratio"] == 1
    assert found["max_abs_diff"] < 1e-3


@pytest.mark.slow
def test_dpo_tells_how_near_packed_training_is(tmp_path: Path) -> None:
    sizes = ["--batches", "1", "2", "--pairs", "2", "--rounds", "1", "--scale", "0.05", "--layers", "1"]
    found = figures([sys.executable, str(ROOT / "benchmarks" / "dpo.py"), *sizes], tmp_path)
    assert all(found[name] > 0 for name in ("speedup_b1", "speedup_b2", "speedup_precomputed_b2", "memory_ratio"))
    assert 0.9 < found["token_ratio"] <= 1 < found["trl_token_ratio"]
    assert found["max_dlogp"] < 1e-3
    assert found["grad_cos"] > 0.9999


@pytest.mark.slow
def test_replies_on_s3_tell_their_figures_and_leave_nothing(tmp_path: Path) -> None:
    argv = [sys.executable, str(ROOT / "benchmarks" / "replies_s3.py"), "--replies", "2000"]
    assert figures(argv, tmp_path).keys() == {"replies", "puts_per_s", "fetch_s"}
    assert list(tmp_path.iterdir()) == []


def figures(argv: list[str], place: Path) -> dict[str, Any]:
    """What the last line of a benchmark says, which has ``place`` for its own files."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env={**_env(), "TMPDIR": str(place)})
    assert done.returncode == 0, done.stderr[-3000:]
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "components")}

"""Metrics in MLflow: one parent run per pipeline run, a nested run per stage."""

from pathlib import Path

from rlhi.manifest import Manifest


def log_stage(described: Manifest, folder: Path, *, reused: bool) -> None:
    """Logs one stage's parameters, counts, metrics, funnel, digests and pictures to its nested run."""

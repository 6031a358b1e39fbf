"""All arms of all seeds, one after the other or several at a time, and the choice of learning rates before them."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from rlhi.progress import bar
from rlhi.tastes.config import TRAINED, Arm, TastesConfig
from rlhi.tastes.experiment import Place, measure_arm, tune_arm

ARMS: tuple[Arm, ...] = ("base", *TRAINED)
Tried = Mapping[Arm, Mapping[float, float]]


def measure_all(work: Path, configs: Sequence[TastesConfig], tried: Tried, jobs: int) -> list[Place]:
    """Measures every arm for every seed, each arm with the learning rate that did best where it was ``tried``."""
    places = [Place(work, arm, _at(config, best(tried, arm))) for config in configs for arm in ARMS]
    with _pool(jobs) as pool, bar("arms", len(places), "arm") as shown:
        for done in as_completed([pool.submit(measure_arm, place) for place in places]):
            done.result()
            shown.update()
    return places


def tune(work: Path, config: TastesConfig, jobs: int) -> Tried:
    """The mean reward that each arm's answers got from the validation users, by learning rate.

    All arms try the same rates; one rate alone is not tried. Test users, requests and wordings take no part.
    """
    if len(config.rates) == 1:
        return {}
    runs = [(arm, rate, Place(work, arm, _at(config, rate))) for rate in config.rates for arm in TRAINED]
    with _pool(jobs) as pool, bar("learning rates", len(runs), "run") as shown:
        begun = {pool.submit(tune_arm, place): (arm, rate) for arm, rate, place in runs}
        for done in as_completed(begun):
            done.result()
            shown.update()
    return {arm: {rate: done.result() for done, (own, rate) in begun.items() if own == arm} for arm in TRAINED}


def best(tried: Tried, arm: Arm) -> float | None:
    """The learning rate that pleased the validation users most; nothing where none was tried."""
    own = tried.get(arm, {})
    return max(own, key=own.__getitem__, default=None)


def _at(config: TastesConfig, rate: float | None) -> TastesConfig:
    training = replace(config.training, learning_rate=rate or config.rates[0])
    return replace(config, training=training)


def _pool(jobs: int) -> ProcessPoolExecutor:
    """Processes that do ``jobs`` arms at a time and share the cores; fresh ones, since CUDA survives no fork."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    return ProcessPoolExecutor(jobs, get_context("spawn"), _start, (threads,))


def _start(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)

"""All arms of all seeds, one after the other or several at a time, and the choice of settings before them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from rlhi.progress import bar
from rlhi.tastes.config import TRAINED, Arm, TastesConfig, TrainingConfig
from rlhi.tastes.experiment import Place, measure_arm, tune_arm, write

ARMS: tuple[Arm, ...] = ("base", *TRAINED)
SETTINGS, CHOSEN = "settings.json", "chosen.json"
# What is tried where settings are to be chosen, the likeliest first; every arm tries all of them.
VARIANTS: tuple[Mapping[str, Any], ...] = (
    {},
    {"sft_weight": 0.0},
    {"sft_weight": 1.0},
    {"learning_rate": 5e-5},
    {"learning_rate": 1e-3, "lora_rank": 32},
    {"beta": 0.5},
)
OF_DPO = ("beta", "sft_weight")  # what makes no difference to SFT
Settings = Mapping[Arm, TrainingConfig]


def measure_all(work: Path, configs: Sequence[TastesConfig], settings: Settings, jobs: int) -> list[Place]:
    """Measures every arm for every seed."""
    places = [Place(work, arm, _with(config, arm, settings)) for config in configs for arm in ARMS]
    with _pool(jobs) as pool, bar("arms", len(places), "arm") as shown:
        for done in as_completed([pool.submit(measure_arm, place) for place in places]):
            done.result()
            shown.update()
    return places


def tune(work: Path, config: TastesConfig, jobs: int, seconds: float) -> dict[Arm, TrainingConfig]:
    """The settings of each arm that pleased the validation users most, of those tried in about ``seconds``.

    All arms try the same ones in the same order. Test users, requests and wordings take no part.
    """
    tried = list(dict.fromkeys((_varied(work, arm, config, one), arm) for one in VARIANTS for arm in TRAINED))
    found: dict[Arm, list[tuple[float, TrainingConfig]]] = {arm: [] for arm in TRAINED}
    with _pool(jobs) as pool, bar("settings", len(tried), "run") as shown:
        runs = {pool.submit(tune_arm, place): (place, arm) for place, arm in tried}
        for run in _until(runs, time.monotonic() + seconds):
            place, arm = runs[run]
            found[arm].append((run.result(), place.config.training))
            shown.update()
            _keep(work, found)
    chosen = {arm: max(own, key=lambda one: one[0])[1] for arm, own in found.items()}
    write(work / CHOSEN, {arm: asdict(own) for arm, own in chosen.items()})
    return chosen


def chosen_in(work: Path) -> dict[Arm, TrainingConfig]:
    """The settings that `tune` chose before; none where it did not."""
    path = work / CHOSEN
    return TypeAdapter(dict[Arm, TrainingConfig]).validate_json(path.read_bytes()) if path.exists() else {}


def _keep(work: Path, found: Mapping[Arm, Sequence[tuple[float, TrainingConfig]]]) -> None:
    said = {arm: [{"reward": reward, **asdict(own)} for reward, own in runs] for arm, runs in found.items()}
    write(work / SETTINGS, said)


def _until(runs: Mapping[Future[Any], object], end: float) -> Iterator[Future[Any]]:
    """What is done, as it is; what has not begun by ``end`` is left out."""
    for run in as_completed(runs):
        if run.cancelled():
            continue
        yield run
        if time.monotonic() > end:
            for other in runs:
                other.cancel()


def _varied(work: Path, arm: Arm, config: TastesConfig, variant: Mapping[str, Any]) -> Place:
    own = {name: value for name, value in variant.items() if arm != "sft" or name not in OF_DPO}
    return Place(work, arm, replace(config, training=replace(config.training, **own)))


def _with(config: TastesConfig, arm: Arm, settings: Settings) -> TastesConfig:
    chosen = settings.get(arm, config.training)
    return replace(config, training=replace(chosen, wordings=config.training.wordings))


def _pool(jobs: int) -> ProcessPoolExecutor:
    """Processes that do ``jobs`` arms at a time; fresh ones, since CUDA survives no fork."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))

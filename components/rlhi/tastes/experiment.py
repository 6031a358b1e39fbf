"""Known tastes: does persona-conditioned DPO personalize? Simulated users, whose rule scores every answer.

Users like short or expansive answers, lists or prose, casual or formal ones (after Table 1). Their personas say so in
many wordings. Four arms: the base model; DPO on pairs by each user's own rule (2.4); DPO on the same pairs by the mean
reward of all users (the user-agnostic baseline of 3.3); and SFT on the chosen answers (3.3). All have the same
requests, personas, answers, steps and settings. They are tested on users, requests and wordings that none of them saw.

What is done is kept: an arm's folder is named by all that its weights hang on, and what was measured lies in it.
"""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rlhi.tastes.config import Arm, TastesConfig
from rlhi.tastes.heldout import held_out
from rlhi.tastes.people import training_people
from rlhi.tastes.requests import asks
from rlhi.tastes.twins import Drawing, draw, pairs

TUNED = "validation.json"
VALIDATION = (3, 1)  # users of each taste, and their requests, on whom settings are chosen


@dataclass(frozen=True)
class Place:
    """Where an arm of one seed is kept."""

    work: Path
    arm: Arm
    config: TastesConfig

    @property
    def folder(self) -> Path:
        """Of its weights and history."""
        return self.work / self.config.training_name(self.arm)

    @property
    def measured(self) -> Path:
        """What the test found."""
        return self.folder / f"{self.config.measuring_name}.json"

    def read(self) -> dict[str, Any]:
        """What the test found."""
        found: dict[str, Any] = json.loads(self.measured.read_text())
        return found


def train_arm(place: Place) -> None:
    """Trains an arm, unless it is trained."""
    from rlhi.tastes.training import train

    done = place.folder / "trained.json"
    if place.arm == "base" or done.exists():
        return
    shutil.rmtree(place.folder, ignore_errors=True)
    place.folder.mkdir(parents=True)
    own, seed, dimensions = place.config.training, place.config.seed, place.config.dimensions
    people = training_people(own.people, seed, dimensions)
    twins = draw(asks("train"), people, Drawing(own.steps * own.batch_size // 2, seed, dimensions))
    rows = pairs(twins, place.arm, [person.taste for person in people])
    train(place.config.dpo(place.arm), rows, place.folder)
    write(done, {"arm": place.arm, "pairs": len(rows), **asdict(place.config)})


def tune_arm(place: Place) -> float:
    """Trains an arm and gives the mean reward of what it says to the validation users with their personas."""
    from rlhi.tastes.measuring import guided

    train_arm(place)
    path = place.folder / TUNED
    if not path.exists():
        shown = held_out("validation", VALIDATION, 0, place.config.dimensions)
        write(path, guided(_policy(place), shown, place.config))
    found = json.loads(path.read_text())
    return float(found["reward"])


def measure_arm(place: Place) -> None:
    """Trains an arm and tests it, unless that is done."""
    from rlhi.tastes.measuring import answers, contrasts

    train_arm(place)
    if place.measured.exists():
        return
    place.folder.mkdir(parents=True, exist_ok=True)
    policy, base, config = _policy(place), _policy(replace(place, arm="base")), place.config
    shown = held_out("test", (config.users, config.turns), config.seed, config.dimensions)
    found = {
        "answers": [asdict(one) for one in answers(policy, base, shown, config)],
        "contrasts": [asdict(one) for one in contrasts(policy, config)],
    }
    write(place.measured, found)


def _policy(place: Place) -> Any:
    from rlhi.engine.models import load_policy, trained_in

    return load_policy(place.config.model, None if place.arm == "base" else trained_in(place.folder))


def write(path: Path, value: Any) -> None:
    """JSON, all of it or none."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)

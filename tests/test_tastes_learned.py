"""Persona-conditioned DPO learns from personas, and what it learned holds for new wordings, users and requests.

This is the experiment of `docs/known-tastes.md`, whose whole takes two hours, made small: people mind lists or
prose alone, there are few steps, and nothing is sampled. Does the right persona speak more for the right answer?
"""

from pathlib import Path

import pytest

from rlhi.config import ModelConfig
from rlhi.engine.models import load_policy, trained_in
from rlhi.tastes.config import Arm, TastesConfig, TrainingConfig
from rlhi.tastes.experiment import Place, train_arm
from rlhi.tastes.measuring import contrasts

CONFIG = TastesConfig(
    model=ModelConfig(device="cpu"),
    dimensions=("structure",),
    training=TrainingConfig(steps=40),
    contrasts=16,
)


def right(arm: Arm, work: Path) -> float:
    """The share of 16 held-out requests where the right persona speaks for the right answer."""
    place = Place(work, arm, CONFIG)
    train_arm(place)
    policy = load_policy(CONFIG.model, None if arm == "base" else trained_in(place.folder))
    found = [one.nats > 0 for one in contrasts(policy, CONFIG) if one.said == "for"]
    return sum(found) / len(found)


@pytest.mark.slow
def test_dpo_on_twins_learns_whose_answer_it_is_from_words_that_it_never_saw(tmp_path: Path) -> None:
    base, own = (right(arm, tmp_path) for arm in ("base", "user-based"))

    assert own >= 0.8
    assert base <= 0.7

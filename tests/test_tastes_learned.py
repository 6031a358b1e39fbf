"""Persona-conditioned DPO learns from personas, on the smallest question that shows it: lists or plain text.

The whole experiment takes hours on a CPU, `docs/known-tastes.md` has what came of it. Here are one taste, a few
wordings, and no sampling: for new requests, does the right persona speak more for the right answer than the wrong one?
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from rlhi.config import ModelConfig
from rlhi.dpo.config import DpoConfig
from rlhi.engine.models import load_policy, trained_in
from rlhi.tastes import training
from rlhi.tastes.config import Arm
from rlhi.tastes.heldout import Forced
from rlhi.tastes.measuring import spoken_for
from rlhi.tastes.people import Person
from rlhi.tastes.requests import Ask, Manner, asks
from rlhi.tastes.rule import Taste
from rlhi.tastes.twins import Twins, pairs

ARMS: tuple[Arm, ...] = ("base", "user-agnostic", "user-based")
STEPS, PAIRS = 20, 4
CONFIG = DpoConfig(
    model=ModelConfig(device="cpu"),
    learning_rate=2e-3,
    batch_size=PAIRS,
    lora_rank=16,
    validation_share=0,
    checkpoint_every=1000,
)
LIST: Manner = ("short", "list", "formal")
PROSE: Manner = ("short", "prose", "formal")
LISTER = Person("lister", Taste(-1, 1, -1), ())
READER = Person("reader", Taste(-1, -1, -1), ())
FRAMES = ("likes", "prefers", "wants", "asks for")
LISTS = ("bullet points", "lists", "a list of points", "one point on each line", "clear structure", "bulleted answers")
TEXTS = ("flowing text", "plain sentences", "a paragraph to read", "running text", "normal sentences", "free text")
CROWD = [LISTER.taste] * 6 + [READER.taste] * 4


def worded(phrases: Sequence[str], random: Random) -> str:
    return f"The user {random.choice(FRAMES)} {random.choice(phrases)}."


def twins(questions: Sequence[Ask], count: int, seed: str) -> list[Twins]:
    random = Random(seed)
    return [
        Twins(
            ask,
            (ask.answer(LIST), ask.answer(PROSE)),
            (LISTER, READER),
            (worded(LISTS, random), worded(TEXTS, random)),
        )
        for ask in random.choices(questions, k=count)
    ]


def right(arm: Arm, seed: int, folder: Path) -> float:
    """The share of new requests where the right persona speaks for the right answer."""
    if arm != "base":
        shown = twins(asks("train"), STEPS * PAIRS // 2, str(seed))
        training.train(CONFIG, pairs(shown, arm, CROWD), folder)
    policy = load_policy(CONFIG.model, None if arm == "base" else trained_in(folder))
    new = [ask for ask in asks("test") if ask.id.endswith("/0")]
    tested = [Forced(one.ask, one.answers, one.personas) for one in twins(new, 16, f"test {seed}")]
    nats = spoken_for(policy, tested)
    return sum(value > 0 for value in nats) / len(nats)


@pytest.mark.slow
def test_dpo_learns_whose_answer_it_is_and_the_mean_of_all_users_does_not_teach_it(tmp_path: Path) -> None:
    base, crowd, own = (right(arm, 0, tmp_path / arm) for arm in ARMS)

    assert own >= 0.9
    assert max(base, crowd) <= 0.75

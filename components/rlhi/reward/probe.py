"""A few questions with a good and a bad answer each, scored before anything else is.

A head that is random, a sigmoid that nobody asked for or a wrong template give numbers that look like rewards. A model
that ranks most of these pairs wrong does not know a good answer, whatever its numbers are.
"""

from collections.abc import Sequence

from rlhi.errors import InputError
from rlhi.records import Answer, Candidates, Message
from rlhi.reward.model import RewardModel, Score, Unscored

PERSONA = "- likes answers that are right and to the point"
NOBODY = ""  # whose rows these are: each shard of a stage asks for them
PAIRS = (
    ("What is the capital of France?", "The capital of France is Paris.", "France has no capital, go away."),
    ("What is 7 times 8?", "7 times 8 is 56.", "7 times 8 is 12, or maybe a banana."),
    (
        "Please give me three tips for sleeping better.",
        "1. Go to bed at the same time each day.\n2. Keep the room dark and cool.\n3. Avoid coffee in the evening.",
        "no",
    ),
    (
        "Write a Python function that adds two numbers.",
        "def add(a, b):\n    return a + b",
        "asdf asdf asdf asdf asdf asdf",
    ),
    (
        "My flight was cancelled and I am upset. What should I do?",
        "I am sorry to hear that. Ask the airline's desk to book you on the next flight, and keep your receipts: you "
        "may be owed a refund.",
        "That is your own stupid fault. Stop whining.",
    ),
    (
        "Translate 'good morning' into Spanish.",
        "In Spanish, 'good morning' is 'buenos días'.",
        "The the the the the the the the the the.",
    ),
    (
        "Why is the sky blue?",
        "Sunlight is scattered by the air, and blue light more than red, so blue reaches us from all sides.",
        "The sky is green because fish paint it every night.",
    ),
)
LOOK = "look at the chat template, the token at the end, and whether the checkpoint has the head (score.weight)"


def rows() -> list[Candidates]:
    """The probe as candidates: of each row the first answer is the good one."""
    return [
        Candidates(f"probe-{i}", NOBODY, (Message("user", asked),), PERSONA, None, (_answer(good), _answer(bad)))
        for i, (asked, good, bad) in enumerate(PAIRS)
    ]


def probe(model: RewardModel) -> str:
    """Scores the probe with ``model`` and says how many pairs it ranks right.

    Raises:
        InputError: scores that are missing, all the same, all in [0, 1] where they are not bounded by design, or in the
            wrong order for half of the pairs or more.
    """
    scores = model.score(rows())
    flat = [score for own in scores for score in own if not isinstance(score, Unscored)]
    if len(flat) < 2 * len(PAIRS):
        raise InputError(f"reward model: {_missing(scores)} of {2 * len(PAIRS)} known answers got no score; {LOOK}")
    shown = f"{min(flat):.4g} to {max(flat):.4g}"
    if max(flat) - min(flat) <= 1e-6 * max(map(abs, flat)):
        raise InputError(f"reward model: gives {shown} to good and bad answers alike; {LOOK}")
    if not model.bounded and min(flat) >= 0 and max(flat) <= 1:
        raise InputError(
            f"reward model: all scores of known answers lie in [0, 1] ({shown}), as behind a sigmoid; switch the "
            'activation off, or set "bounded": true in reward.contract if this is its scale'
        )
    right = sum(good > bad for good, bad in (_numbers(own) for own in scores))
    if 2 * right <= len(PAIRS):
        raise InputError(
            f"reward model: ranks only {right} of {len(PAIRS)} good answers above plainly bad ones ({shown}); {LOOK}"
        )
    return f"Of {len(PAIRS)} pairs of a good and a bad answer it ranks {right} right, with scores from {shown}."


def _numbers(own: Sequence[Score]) -> tuple[float, float]:
    good, bad = (score for score in own if not isinstance(score, Unscored))
    return good, bad


def _missing(scores: Sequence[Sequence[Score]]) -> str:
    why = [score.why for own in scores for score in own if isinstance(score, Unscored)]
    return f"{len(why)} ({', '.join(sorted(set(why)))})"


def _answer(text: str) -> Answer:
    return Answer(text, "sample", "stop", None, None)

import pytest

from rlhi.errors import InputError
from rlhi.records import Candidates
from rlhi.reward.model import Score, Unscored
from rlhi.reward.probe import PAIRS, probe
from tests.rewards import FakeReward

GOOD = {good for _, good, _ in PAIRS}


def knows(row: Candidates, text: str) -> Score:
    return 3.0 if text in GOOD else -1.0


def mostly(row: Candidates, text: str) -> float:
    """Ranks three of seven pairs wrong."""
    wrong = row.id in ("probe-0", "probe-1", "probe-2")
    return 3.0 if (text in GOOD) != wrong else -1.0


def sigmoid(row: Candidates, text: str) -> Score:
    return 0.9 if text in GOOD else 0.2


def test_model_that_knows_good_from_bad_passes() -> None:
    assert "ranks 7 right, with scores from -1 to 3" in probe(FakeReward(knows))
    assert "ranks 4 right" in probe(FakeReward(mostly))
    assert "ranks 7 right" in probe(FakeReward(sigmoid, bounded=True))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            sigmoid,
            r"all scores of known answers lie in \[0, 1\] \(0.2 to 0.9\), as behind a sigmoid; switch the activation",
        ),
        (lambda row, text: -2.5, r"gives -2.5 to -2.5 to good and bad answers alike; look at the chat template"),
        (lambda row, text: 0.0, r"gives 0 to 0 to good and bad answers alike"),
        (lambda row, text: -mostly(row, text), r"ranks only 3 of 7 good answers above plainly bad ones"),
        (lambda row, text: Unscored("not_a_number"), r"14 \(not_a_number\) of 14 known answers got no score"),
    ],
)
def test_model_that_does_not_is_refused_and_told_where_to_look(rule: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        probe(FakeReward(rule))  # type: ignore[arg-type]

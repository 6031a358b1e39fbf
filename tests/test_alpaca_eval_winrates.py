import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhi.analyze.estimates import Bootstrap
from rlhi.benchmark.alpaca_eval.winrates import Judged, length_controlled, raw
from rlhi.benchmark.rates import Rate

ANNOTATIONS = Path(__file__).parents[2] / "shared" / "data" / "bench" / "alpaca-eval-annotations.jsonl.gz"
needs_annotations = pytest.mark.skipif(not ANNOTATIONS.exists(), reason="needs ../shared, which is absent here")


def annotated() -> list[tuple[dict[str, Any], list[Judged]]]:
    """Models of the leaderboard: their published figures, and how each instruction was judged."""
    with gzip.open(ANNOTATIONS, "rt") as file:
        rows = [json.loads(line) for line in file]
    columns = ("preference", "len_2", "len_1")
    return [
        (
            row["published"],
            [Judged(p - 1, ours, theirs) for p, ours, theirs in zip(*map(row.get, columns), strict=True)],
        )
        for row in rows
    ]


def drawn(count: int, length_term: float, own_term: float, seed: int = 0) -> list[Judged]:
    """Instructions whose judge follows a logistic law of the length difference, for models that differ in length."""
    random = np.random.default_rng(seed)
    theirs = random.integers(500, 3000, count)
    ours = (theirs * random.uniform(0.3, 1.7, count)).astype(int)
    difference = theirs - ours
    logits = own_term + length_term * np.tanh(difference / difference.std(ddof=1)) + random.normal(0, 1.5, count)
    won = 1 / (1 + np.exp(-logits))
    return [Judged(float(p), int(a), int(b)) for p, a, b in zip(won, ours, theirs, strict=True)]


def rate(judged: list[Judged]) -> float:
    """The length-controlled win rate, in percent as it is published."""
    found = length_controlled(judged, Bootstrap(100)).value
    assert found is not None
    return 100 * found


@needs_annotations
def test_raw_win_rates_and_standard_errors_are_the_published_ones() -> None:
    for published, judged in annotated():
        found = raw(judged, Bootstrap(100))
        assert found.value == pytest.approx(published["win_rate"] / 100, abs=1e-4)
        assert found.standard_error == pytest.approx(published["standard_error"] / 100, abs=1e-4)


@needs_annotations
def test_length_controlled_win_rates_are_close_to_the_published_ones() -> None:
    both = np.array([(published["length_controlled_winrate"], rate(judged)) for published, judged in annotated()])
    models = both[both[:, 0] != 50]  # the baseline against itself is 50 by any method
    assert len(models) == 9
    assert np.corrcoef(models.T)[0, 1] > 0.999
    assert np.abs(models[:, 0] - models[:, 1]).mean() < 0.5
    assert np.abs(models[:, 0] - models[:, 1]).max() < 1


def test_preferences_between_the_answers_count_in_part() -> None:
    found = raw([Judged(1.0, 5, 5), Judged(0.25, 5, 5), Judged(0.25, 5, 5)], Bootstrap(100))
    assert found.value == pytest.approx(0.5)
    assert found.standard_error == pytest.approx(math.sqrt((0.25 + 2 * 0.0625) / 2) / math.sqrt(3))
    assert found.items == 3


def test_model_that_wins_by_length_alone_wins_half_at_equal_length() -> None:
    judged = drawn(3000, -1.5, 0.0)
    assert rate(judged) == pytest.approx(50, abs=2)
    wordy = [each for each in judged if each.model_length > each.baseline_length]
    won = raw(wordy, Bootstrap(100)).value
    assert won is not None
    assert won > 0.6
    assert rate(wordy) < 100 * won - 10


def test_win_rate_at_equal_length_is_that_of_the_law_behind_the_preferences() -> None:
    expected = 100 * float(np.mean(1 / (1 + np.exp(-(-2 + np.random.default_rng(1).normal(0, 1.5, 100_000))))))
    assert rate(drawn(3000, -1.5, -2.0)) == pytest.approx(expected, abs=1.5)


def test_baseline_against_itself_is_fifty() -> None:
    assert rate([Judged(0.5, n, n) for n in range(1, 100)]) == pytest.approx(50)


def test_model_that_always_loses_or_wins_has_a_rate() -> None:
    lengths = [(100 + n, 900 - n) for n in range(200)]
    assert rate([Judged(0.0, *each) for each in lengths]) < 1
    assert rate([Judged(1.0, *each) for each in lengths]) > 99


def test_swapping_model_and_baseline_of_like_lengths_mirrors_the_rate() -> None:
    judged = [Judged(p, 500 + 200 * (n % 3), 700) for n, p in enumerate([0.9, 0.2, 0.6, 0.8, 0.4, 0.7] * 20)]
    swapped = [Judged(1 - each.preferred, each.baseline_length, each.model_length) for each in judged]
    assert rate(judged) == pytest.approx(100 - rate(swapped), abs=3)


def test_interval_holds_the_rate_and_the_seed_fixes_it() -> None:
    found = length_controlled(drawn(200, -1.5, -0.5), Bootstrap(200))
    assert None not in (found.low, found.value, found.high)
    assert found.low < found.value < found.high  # type: ignore[operator]
    assert found == length_controlled(drawn(200, -1.5, -0.5), Bootstrap(200))


def test_nothing_judged_is_null_not_a_number() -> None:
    assert raw([], Bootstrap(100)).value is None
    assert length_controlled([], Bootstrap(100)).value is None
    alone = [Judged(1.0, 3, 4)]
    assert raw(alone, Bootstrap(100)) == Rate(1.0, None, None, None, 1)
    assert length_controlled(alone, Bootstrap(100)).value is None

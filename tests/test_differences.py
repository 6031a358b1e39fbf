"""Statistics that know whose turns are whose: paired differences, sign flips, and lengths taken out."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from rlhi.evaluate.clusters import flip_test
from rlhi.evaluate.differences import INDIFFERENT, between_models, between_modes, over_personalization
from rlhi.evaluate.length import RIDGE, length_controlled
from rlhi.evaluate.turns import HeldOutTurn
from rlhi.evaluate.winrates import Outcome, Outcomes
from rlhi.records import Mode
from tests.rows import messages

AXIS = "instruction-following"


def outcomes(**modes: Sequence[float | None]) -> Outcomes:
    """Scores of turns t0, t1, ... by mode; two turns a user."""
    return {
        ("log", mode.replace("_", "-"), AXIS): [  # type: ignore[misc]
            Outcome(f"t{i}", f"u{i // 2}", "initial", (score,), (None,), 0) for i, score in enumerate(scores)
        ]
        for mode, scores in modes.items()
    }


def test_modes_are_compared_turn_by_turn_where_both_were_read() -> None:
    found = between_modes(outcomes(persona_guided=[1, 1, 0.5, None], context_only=[0, 0.5, 0.5, 1]), 200, 0)
    (each,) = found
    assert (each.left, each.right, each.opponent, each.metric) == ("persona-guided", "context-only", "log", AXIS)
    assert each.difference == pytest.approx((1 + 0.5 + 0) / 3)
    assert (each.turns, each.users) == (3, 2)


def test_every_contrast_of_the_controls_is_made_once() -> None:
    modes: list[Mode] = ["context-only", "persona-guided", "shuffled-persona", "shuffled-judge"]
    found = between_modes(outcomes(**{mode: [1.0, 0.0] for mode in modes}), 200, 0)
    assert len({(each.left, each.right) for each in found}) == len(found) == 4


def test_models_of_two_evaluations_are_compared_on_the_turns_that_both_have() -> None:
    challenger = outcomes(persona_guided=[1.0] * 8, context_only=[1.0] * 8)
    champion = outcomes(persona_guided=[0.0] * 6)
    (each,) = between_models(("challenger", challenger), ("champion", champion), 200, 0)
    assert (each.left, each.right, each.mode) == ("challenger", "champion", "persona-guided")
    assert (each.difference, each.turns, each.users) == (1.0, 6, 3)
    assert each.p == 2 / 2**3


def test_nothing_in_common_is_null() -> None:
    (each,) = between_models(("a", outcomes(context_only=[1.0])), ("b", outcomes(context_only=[])), 200, 0)
    assert (each.difference, each.low, each.p, each.turns) == (None, None, None, 0)


def test_over_personalization_is_quality_lost_where_the_persona_does_not_matter() -> None:
    matters = (False, False, True, None, False, False)
    turns = [
        HeldOutTurn(f"t{i}", f"u{i // 2}", "initial", messages("Hi."), "- short", "log", None, one)
        for i, one in enumerate(matters)
    ]
    scores = outcomes(context_only=[1, 0.5, 1, 1, 0.5, 1], persona_guided=[0, 0.5, 0, 0, 0.5, 0.5])
    (each,) = over_personalization(scores, turns, 200, 0)
    assert each.difference == pytest.approx((1 + 0 + 0 + 0.5) / 4)
    assert (each.turns, each.users, each.part) == (4, 2, INDIFFERENT)


def test_flip_test_of_few_users_counts_every_pattern() -> None:
    sums = {"a": [1.0, 1.0], "b": [1.0], "c": [-0.5]}
    totals = [2 * a + b - 0.5 * c for a, b, c in itertools.product((1, -1), repeat=3)]
    assert flip_test(sums, 2000, 0) == sum(abs(one) >= 2.5 for one in totals) / 8
    assert flip_test({"a": [1.0], "b": []}, 2000, 0) is None


def test_flip_test_of_many_users_is_near_the_exact_one() -> None:
    scores = {f"u{i}": [0.5] if i % 3 else [-0.5] for i in range(12)}
    exact = flip_test(scores, 2**12, 0)
    drawn = flip_test(scores, 2**12 - 1, 0)
    assert exact is not None
    assert drawn is not None
    assert exact != drawn
    assert drawn == pytest.approx(exact, abs=0.03)


def test_turns_of_one_user_are_no_evidence_of_their_own() -> None:
    assert flip_test({"a": [1.0] * 500, "b": [1.0] * 500}, 2000, 0) == 0.5


@pytest.mark.parametrize("users", [8, 40])
def test_flip_test_finds_a_difference_where_there_is_none_as_often_as_it_says(users: int) -> None:
    """With users who lean this way or that, where a test over turns would see a difference in most cases."""
    random = np.random.default_rng(users)
    found = []
    for _ in range(300):
        leanings = random.normal(size=users)
        scores = {f"u{i}": list(leaning + 0.1 * random.normal(size=10)) for i, leaning in enumerate(leanings)}
        found.append(flip_test(scores, 256, 0) or 0)
    assert 0.02 < np.mean([p <= 0.05 for p in found]) < 0.09


def turns(seed: int, count: int, quality: float, verbosity: float) -> list[tuple[str, float, int]]:
    """A judge who likes quality and length; our answers are 300 characters longer in the mean."""
    random = np.random.default_rng(seed)
    longer = random.normal(300, 500, count).round().astype(int)
    chance = 1 / (1 + np.exp(-(quality + verbosity * np.tanh(longer / longer.std()))))
    return [
        (f"u{i % 50}", float(random.random() < p), int(d)) for i, (p, d) in enumerate(zip(chance, longer, strict=True))
    ]


def test_win_rate_that_length_alone_made_is_one_half_without_it() -> None:
    rows = turns(0, 3000, quality=0.0, verbosity=2.0)
    assert np.mean([score for _, score, _ in rows]) > 0.62
    found, between = length_controlled(rows, 200, 0) or (0, None)
    assert found == pytest.approx(0.5, abs=0.04)
    assert between is not None
    assert between[0] < 0.5 < between[1]


def test_quality_stays_where_length_does_not_matter_to_the_judge() -> None:
    rows = turns(1, 3000, quality=1.0, verbosity=0.0)
    found, _ = length_controlled(rows, 200, 0) or (0, None)
    assert found == pytest.approx(np.mean([score for _, score, _ in rows]), abs=0.03)


def test_fit_is_that_of_a_known_library() -> None:
    rows = turns(2, 400, quality=-0.5, verbosity=1.0)
    longer = np.array([d for _, _, d in rows], float)
    features = np.stack([np.ones(len(rows)), np.tanh(longer / longer.std())], 1)
    fitted = LogisticRegression(C=1 / RIDGE, fit_intercept=False, tol=1e-10, max_iter=1000)
    fitted.fit(features, [score for _, score, _ in rows])
    found, _ = length_controlled(rows, 100, 0) or (0, None)
    assert found == pytest.approx(1 / (1 + np.exp(-fitted.coef_[0, 0])), abs=1e-5)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from((0.0, 0.5, 1.0)), st.integers(-900, 900)), min_size=2)
)
def test_swapping_the_sides_mirrors_the_length_controlled_rate(rows: list[tuple[str, float, int]]) -> None:
    ours = length_controlled(rows, 100, 0)
    theirs = length_controlled([(user, 1 - score, -longer) for user, score, longer in rows], 100, 0)
    lengths = [longer for _, _, longer in rows]
    untold = len(set(lengths)) == 1 or min(lengths) > 0 or max(lengths) < 0
    assert (ours is None) == (theirs is None) == untold
    if ours is not None and theirs is not None:
        assert ours[0] == pytest.approx(1 - theirs[0], abs=1e-6)
        assert 0 <= ours[0] <= 1


def test_side_that_wins_all_has_a_rate_near_one_and_not_an_error() -> None:
    rows = [(f"u{i % 4}", 1.0, 100 * i - 700) for i in range(16)]
    found, between = length_controlled(rows, 200, 0) or (0, None)
    assert 0.95 < found < 1
    assert between is not None
    assert between[1] < 1

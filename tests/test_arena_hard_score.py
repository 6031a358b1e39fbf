import numpy as np
import pytest

from rlhi.analyze.estimates import Bootstrap
from rlhi.benchmark.arena_hard.score import Game, score, style_controlled
from rlhi.benchmark.arena_hard.style import Style, style_of
from rlhi.benchmark.arena_hard.verdict import outcome, read_label
from rlhi.benchmark.logistic import Logistic

PLAIN = Style(100, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("My own answer is 4. Both are right. My final verdict is tie: [[A=B]].", "A=B"),
        ("[[A>>B]]", "A>>B"),
        ("[[B>A]], and again: [[B>A]]", "B>A"),
        ("Not [[A>B]] but [[B>A]]", None),
        ("I prefer A>B", None),
        ("[A>B]", None),
        ("[[A<B]]", None),
        ("[[C]]", None),
        ("", None),
    ],
)
def test_label_is_read_as_published_and_never_guessed(text: str, label: str | None) -> None:
    assert read_label(text) == label


def test_outcome_is_the_models_in_either_position() -> None:
    assert outcome("A>>B", model_first=True) == outcome("B>>A", model_first=False) == (1.0, 3)
    assert outcome("B>A", model_first=True) == outcome("A>B", model_first=False) == (0.0, 1)
    assert outcome("A=B", model_first=True) == outcome("A=B", model_first=False) == (0.5, 1)


def test_much_better_counts_three_times_and_a_tie_half() -> None:
    games = [Game("q1", 1.0, 3), Game("q1", 0.0, 1), Game("q2", 0.5, 1), Game("q2", 0.0, 3)]
    found = score(games, Bootstrap(200))
    assert found.value == pytest.approx(3.5 / 8)
    assert found.items == 2


def test_score_is_the_bradley_terry_strength_against_the_one_baseline() -> None:
    games = [Game(f"q{n}", float(n % 3 == 0), 3 if n % 5 == 0 else 1) for n in range(60)]
    won, counted = np.array([(game.won * game.weight, game.weight) for game in games]).T
    strength = Logistic(np.zeros(1), np.array([1e3])).fit(np.ones((len(games), 1)), won, counted)
    assert score(games, Bootstrap(100)).value == pytest.approx(1 / (1 + np.exp(-strength[0])))


def test_interval_draws_questions_with_both_games() -> None:
    split = score([Game(f"q{n}", float(n % 2), 1) for n in range(100) for _ in range(2)], Bootstrap(2000))
    apart = score([Game(f"q{n}", float(n % 2), 1) for n in range(200)], Bootstrap(2000))
    assert split.value == apart.value == 0.5
    width = [each.high - each.low for each in (split, apart) if each.low is not None and each.high is not None]
    assert width[0] == pytest.approx(2 * 1.645 * 0.5 / 100**0.5, rel=0.1)  # 90% of a mean over 100 questions
    assert width[0] > 1.3 * width[1]


def test_nothing_played_is_null_and_one_question_has_no_interval() -> None:
    assert score([], Bootstrap(100)).value is None
    assert style_controlled([], {}, Bootstrap(100)).value is None
    one = score([Game("q", 1.0, 1)], Bootstrap(100))
    assert (one.value, one.low, one.high) == (1, None, None)


def test_markdown_is_counted_outside_code() -> None:
    answer = (
        "# Head\n\n**bold** and __bold__\n- one\n  * two\n3. three\n```\n# comment\n- x **y**\n```\n####### none\n1.5"
    )
    assert style_of(answer) == Style(len(answer), 1, 3, 2)
    assert style_of("```\n# never closed") == Style(18, 0, 0, 0)


def lengths(count: int) -> dict[str, tuple[Style, Style]]:
    """The model's answers are longer in two of three questions."""
    return {f"q{n}": (PLAIN._replace(length=300 if n % 3 else 33), PLAIN) for n in range(count)}


def test_model_that_wins_by_length_alone_scores_half_at_equal_style() -> None:
    games = [Game(f"q{n}", float((n % 10 < 8) == bool(n % 3)), 1) for n in range(300)]
    plain, controlled = score(games, Bootstrap(200)), style_controlled(games, lengths(300), Bootstrap(200))
    assert plain.value == pytest.approx(0.6, abs=0.01)
    assert controlled.value == pytest.approx(0.5, abs=0.02)
    assert controlled.low is not None
    assert controlled.high is not None
    assert controlled.low < controlled.value < controlled.high  # type: ignore[operator]


def test_style_control_of_answers_in_one_style_changes_nothing() -> None:
    games = [Game(f"q{n}", float(n % 4 == 0), 3 if n % 3 == 0 else 1) for n in range(120)]
    same = {game.question: (PLAIN, PLAIN) for game in games}
    plain, controlled = score(games, Bootstrap(100)), style_controlled(games, same, Bootstrap(100))
    assert controlled.value == pytest.approx(plain.value, abs=0.005)


def test_style_control_of_a_model_that_always_wins_is_near_a_hundred() -> None:
    games = [Game(f"q{n}", 1.0, 1) for n in range(9)]
    assert style_controlled(games, lengths(9), Bootstrap(100)).value > 0.95  # type: ignore[operator]

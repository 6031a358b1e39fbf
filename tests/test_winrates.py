import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi.evaluate import clusters
from rlhi.evaluate.clusters import interval
from rlhi.evaluate.turns import Contest, HeldOutTurn
from rlhi.evaluate.winrates import WinRate, judged, rewarded, win_rates
from rlhi.records import Axis, Mode, Opponent, Order, TurnKind, Verdict
from tests.rows import messages


def verdict(
    turn: str,
    user: str,
    order: Order,
    winner: str | None,
    *,
    opponent: Opponent = "log",
    mode: Mode = "persona-guided",
    axis: Axis = "usereval",
    kind: TurnKind = "initial",
) -> Verdict:
    answers = ("ours", "theirs") if order == "model-first" else ("theirs", "ours")
    return Verdict(turn, user, kind, opponent, mode, axis, order, *answers, winner)  # type: ignore[arg-type]


def turn(name: str, user: str, first: str | None, second: str | None) -> list[Verdict]:
    """One turn judged in both orders: the letters named with the model first, and with the opponent first."""
    return [verdict(name, user, "model-first", first), verdict(name, user, "opponent-first", second)]


def overall(verdicts: list[Verdict], resamples: int = 200, seed: int = 0) -> list[WinRate]:
    return [rate for rate in win_rates(judged(verdicts), resamples, seed) if rate.part == "all"]


def one(verdicts: list[Verdict], resamples: int = 200, seed: int = 0) -> WinRate:
    (rate,) = overall(verdicts, resamples, seed)
    return rate


def scored(turn: str, user: str, ours: float | None, theirs: float | None) -> Contest:
    held = HeldOutTurn(turn, user, "initial", messages("Hi."), "- short", "logged")
    return Contest(held, "persona-guided", "log", "ours", "theirs", ours, theirs)


def test_turns_are_averaged_and_self_contradiction_counts_half() -> None:
    verdicts = [
        *turn("t1", "ann", "A", "B"),  # the model's answer twice: 1
        *turn("t2", "ann", "B", "A"),  # the opponent's answer twice: 0
        *turn("t3", "ben", "A", "A"),  # one each: 0.5
        *turn("t4", "ben", "A", "B"),  # 1
    ]
    rate = one(verdicts)
    assert rate.rate == (1 + 0 + 0.5 + 1) / 4
    assert (rate.turns, rate.users, rate.unread) == (4, 2, 0)
    assert rate.disagreement == 1 / 4
    assert rate.first_position == 5 / 8


def test_judge_that_always_says_a_shows_nothing_but_its_own_bias() -> None:
    verdicts = [row for n in range(6) for row in turn(f"t{n}", f"u{n % 3}", "A", "A")]
    rate = one(verdicts)
    assert (rate.rate, rate.low, rate.high) == (0.5, 0.5, 0.5)
    assert rate.disagreement == 1.0
    assert rate.first_position == 1.0


def test_turn_without_readable_verdict_is_left_out_and_its_verdicts_counted() -> None:
    rate = one([*turn("t1", "ann", "A", "B"), *turn("t2", "ben", None, None), *turn("t3", "cal", None, "A")])
    assert rate.rate == 0.5
    assert (rate.turns, rate.users, rate.unread) == (2, 2, 3)
    assert rate.disagreement == 0.0
    assert rate.first_position == 2 / 3


def test_nothing_readable_is_null_not_a_number() -> None:
    rate = one(turn("t1", "ann", None, None))
    assert (rate.rate, rate.low, rate.high, rate.disagreement, rate.first_position) == (None,) * 5
    assert (rate.turns, rate.users, rate.unread) == (0, 0, 2)


def test_disagreement_is_null_where_no_turn_has_both_orders() -> None:
    rate = one([verdict("t1", "ann", "model-first", "A"), verdict("t2", "ben", "opponent-first", "A")])
    assert rate.rate == 0.5
    assert rate.disagreement is None


def test_one_user_gives_no_interval() -> None:
    rate = one([*turn("t1", "ann", "A", "B"), *turn("t2", "ann", "B", "A")])
    assert rate.rate == 0.5
    assert (rate.low, rate.high) == (None, None)


def test_no_verdicts_no_rates() -> None:
    assert overall([]) == []
    assert rewarded([]) == {}


def test_groups_are_separate_and_in_the_order_of_the_record() -> None:
    verdicts = [
        verdict("t", "u", "model-first", "B", opponent="base"),
        verdict("t", "u", "model-first", "A", axis="usereval"),
        verdict("t", "u", "model-first", "B", axis="personalization"),
        verdict("t", "u", "model-first", "B", mode="context-only"),
    ]
    assert [(rate.opponent, rate.mode, rate.metric, rate.rate) for rate in overall(verdicts)] == [
        ("log", "context-only", "usereval", 0.0),
        ("log", "persona-guided", "personalization", 0.0),
        ("log", "persona-guided", "usereval", 1.0),
        ("base", "persona-guided", "usereval", 0.0),
    ]


def test_interval_of_two_users_spans_both() -> None:
    # a resample draws both users (mean 0.25), the first twice (0) or the second twice (1)
    assert interval({"ann": [0.0, 0.0, 0.0], "ben": [1.0]}, 1000, 0) == (0.0, 1.0)


def test_interval_drawn_in_parts_is_that_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {f"u{i}": [i / 37, i % 2] for i in range(37)}
    whole = interval(scores, 2000, 3)
    monkeypatch.setattr(clusters, "DRAWN", 37 * 101)
    assert interval(scores, 2000, 3) == whole


def test_clustered_interval_is_wider_where_users_agree_with_themselves() -> None:
    users = {f"u{n}": [float(n % 2)] * 8 for n in range(10)}
    alone = {f"{user}-{n}": [score] for user, scores in users.items() for n, score in enumerate(scores)}
    clustered, naive = interval(users, 2000, 0), interval(alone, 2000, 0)
    assert clustered is not None
    assert naive is not None
    assert clustered[1] - clustered[0] > 2 * (naive[1] - naive[0])


def test_order_of_verdicts_does_not_matter_and_the_seed_does() -> None:
    verdicts = [row for n in range(30) for row in turn(f"t{n}", f"u{n % 11}", "AB"[n % 2], "AB"[n % 3 == 0])]
    assert one(verdicts) == one(verdicts[::-1])
    assert one(verdicts, seed=1) != one(verdicts, seed=2)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("AB"), st.sampled_from("AB")), min_size=1, max_size=20))
def test_swapping_model_and_opponent_mirrors_the_rate(rows: list[tuple[int, str, str]]) -> None:
    ours = [row for n, (user, first, second) in enumerate(rows) for row in turn(f"t{n}", f"u{user}", first, second)]
    theirs = [row for n, (user, first, second) in enumerate(rows) for row in turn(f"t{n}", f"u{user}", second, first)]
    left, right = one(ours).rate, one(theirs).rate
    assert left is not None
    assert right is not None
    assert left == pytest.approx(1 - right)


def test_reward_ties_count_half() -> None:
    rows = [
        scored("t1", "ann", 2.0, 1.0),
        scored("t2", "ann", 1.0, 1.0),
        scored("t3", "ben", 0.0, 1.0),
        scored("t4", "ben", 3.0, 1.0),
    ]
    rate = win_rates(rewarded(rows), 200, 0)[0]
    assert (rate.metric, rate.rate, rate.turns, rate.users) == ("reward", 2.5 / 4, 4, 2)
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low <= 2.5 / 4 <= rate.high
    assert (rate.unread, rate.disagreement, rate.first_position) == (0, None, None)


def test_turn_without_both_rewards_is_left_out_and_counted() -> None:
    rates = win_rates(rewarded([scored("t1", "ann", 2.0, None), scored("t2", "ann", 2.0, 1.0)]), 200, 0)
    assert (rates[0].rate, rates[0].turns, rates[0].asked, rates[0].unread) == (1.0, 1, 2, 1)
    assert win_rates(rewarded([scored("t1", "ann", None, None)]), 200, 0)[0].rate is None

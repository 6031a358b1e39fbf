"""Warnings of training, on made-up histories: each shows where it should, and does not where it should not."""

import math
import random

import pytest

from rlhi.dpo.watch import length_warnings, warnings

Row = dict[str, float]
BETA = 0.1


def step(number: int, **figures: float) -> Row:
    usual = {"rewards/chosen": 0.1, "rewards/rejected": -0.1, "rewards/margins": 0.2, "rewards/accuracies": 0.8}
    return {"step": number, "loss": 0.6, **usual, **{name.replace("__", "/"): value for name, value in figures.items()}}


def evaluation(number: int, loss: float) -> Row:
    return {"step": number, "eval_loss": loss}


def falling(steps: int, chosen: float, rejected: float, noise: float = 0.0) -> list[Row]:
    """Rewards that fall by so many nats over the run."""
    drawn = random.Random(0)
    return [
        step(
            n,
            rewards__chosen=BETA * (drawn.gauss(0, noise) - chosen * n / steps),
            rewards__rejected=BETA * (drawn.gauss(0, noise) - rejected * n / steps),
        )
        for n in range(1, steps + 1)
    ]


def test_good_run_warns_of_nothing() -> None:
    rows = []
    for n in range(1, 201):
        rows.append(step(n, loss=0.69 - 0.001 * n, rewards__chosen=0.001 * n, rewards__rejected=-0.002 * n))
        if n % 20 == 0:
            rows.append(evaluation(n, 0.69 - 0.0008 * n))
    assert warnings(rows, BETA) == {}


def test_log_probabilities_that_both_fall_are_told_in_nats() -> None:
    found = warnings(falling(40, chosen=6, rejected=30), BETA)
    assert list(found) == ["warning: both fall"]
    assert "the chosen ones lost 1.2 nats since the first steps, the rejected 6.0" in found["warning: both fall"]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(falling(40, chosen=-6, rejected=30), id="only the rejected fall"),
        pytest.param(falling(40, chosen=0.9, rejected=30), id="less than a nat"),
        pytest.param(falling(2000, chosen=0, rejected=0, noise=20), id="noise without a trend"),
        pytest.param(falling(15, chosen=60, rejected=90), id="too few steps to tell"),
    ],
)
def test_what_is_no_common_fall_is_not_warned_of(rows: list[Row]) -> None:
    assert warnings(rows, BETA) == {}


def test_fall_is_found_in_noise_where_there_is_one() -> None:
    assert "warning: both fall" in warnings(falling(400, chosen=40, rejected=80, noise=20), BETA)


@pytest.mark.parametrize(("end", "warned"), [(-1.5, 1), (-0.6, 0), (1.0, 0)])
def test_answers_that_the_model_no_longer_ends(end: float, warned: int) -> None:
    found = warnings([step(n, logps__end=-1 + end * n / 100) for n in range(1, 101)], BETA)
    assert [*found] == ["warning: ending"] * warned
    assert not warned or "is 0.49 times as likely" in found["warning: ending"]


def test_warning_stays_when_the_run_recovers() -> None:
    down = falling(40, chosen=6, rejected=30)
    up = [step(40 + n, rewards__chosen=1, rewards__rejected=-5) for n in range(1, 60)]
    assert warnings(down + up, BETA)["warning: both fall"] == warnings(down, BETA)["warning: both fall"]


@pytest.mark.parametrize(("accuracy", "steps", "warned"), [(0.5, 50, 1), (0.2, 50, 1), (0.6, 50, 0), (0.5, 49, 0)])
def test_accuracy_that_stays_at_chance_for_many_steps(accuracy: float, steps: int, warned: int) -> None:
    rows = [step(n, rewards__accuracies=accuracy) for n in range(1, steps + 1)]
    assert [*warnings(rows, BETA)] == ["warning: accuracy"] * warned


def test_slow_start_of_a_long_run_is_no_standstill() -> None:
    rows = [step(n, rewards__accuracies=0.5 if n < 300 else 0.7) for n in range(1, 1001)]
    assert warnings(rows, BETA) == {}
    assert [*warnings(rows[:299], BETA)] == ["warning: accuracy"]


@pytest.mark.parametrize(("margin", "warned"), [(12.0, 1), (9.0, 0)])
def test_margins_that_explode(margin: float, warned: int) -> None:
    found = warnings([step(n, rewards__margins=margin) for n in range(1, 9)], BETA)
    assert [*found] == ["warning: margins"] * warned
    assert not warned or "120 nats from the reference" in found["warning: margins"]


def test_one_large_margin_is_no_explosion() -> None:
    assert warnings([step(n, rewards__margins=40.0 if n == 4 else 1.0) for n in range(1, 20)], BETA) == {}


@pytest.mark.parametrize(
    ("validation", "training", "warned"),
    [
        pytest.param([0.6, 0.55, 0.6, 0.65], [0.6, 0.5, 0.4, 0.3], 1, id="validation rises while training falls"),
        pytest.param([0.6, 0.55, 0.6, 0.65], [0.6, 0.5, 0.6, 0.7], 0, id="both rise"),
        pytest.param([0.6, 0.55, 0.555, 0.556], [0.6, 0.5, 0.4, 0.3], 0, id="hardly rises"),
        pytest.param([0.6, 0.55, 0.65, 0.55], [0.6, 0.5, 0.4, 0.3], 0, id="comes back"),
        pytest.param([0.65, 0.6, 0.55, 0.6], [0.6, 0.5, 0.4, 0.3], 0, id="rises once"),
    ],
)
def test_validation_loss_that_rises(validation: list[float], training: list[float], warned: int) -> None:
    rows: list[Row] = []
    for part, (held_out, own) in enumerate(zip(validation, training, strict=True)):
        rows += [step(4 * part + n, loss=own) for n in range(1, 5)]
        rows.append(evaluation(4 * part + 4, held_out))
    assert [*warnings(rows, BETA)] == ["warning: validation"] * warned


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_figure_that_is_no_number_is_told_at_once(name: str) -> None:
    found = warnings([step(1), step(2, **{name: math.nan}), step(3, **{name: math.inf})], BETA)
    assert found == {"warning: not finite": f"{name} is nan at step 2: the weights are spoilt."}


def test_sft_which_has_no_rewards_can_be_watched() -> None:
    rows = [{"step": n, "loss": 2.0, "logps/chosen": -5.0 * n} for n in range(1, 80)]
    assert warnings(rows, BETA) == {}


def test_much_longer_chosen_answers_are_told_with_the_ratio() -> None:
    text = length_warnings([130, 150, 140], [100, 100, 100])["warning: lengths"]
    assert "1.40 times as long as the rejected (140 and 100 tokens), and longer in 100% of the pairs" in text


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        pytest.param([110, 110], [100, 100], id="a little longer"),
        pytest.param([100, 100], [150, 150], id="shorter"),
        pytest.param([90, 90, 900], [100, 100, 100], id="one long answer"),
    ],
)
def test_lengths_that_teach_nothing_are_not_warned_of(chosen: list[int], rejected: list[int]) -> None:
    assert length_warnings(chosen, rejected) == {}


@pytest.mark.parametrize(("before", "warned"), [(100.0, 1), (120.0, 0), (None, 0)])
def test_answers_that_grow_from_round_to_round(before: float | None, warned: int) -> None:
    found = length_warnings([130, 130], [130, 130], before)
    assert [*found] == ["warning: growth"] * warned

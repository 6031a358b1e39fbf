"""In what two recipes differ, as `diff` tells."""

from dataclasses import replace

import pytest

from pipelines import diff
from pipelines.__main__ import main
from pipelines.recipes import BASE_MODEL, NO_FILTER, USER_BASED_REWARDS, USER_BASED_REWARDS_ONLINE, USER_GUIDED_REWRITES


def test_stages_that_one_runs_come_first() -> None:
    found = diff.differences(USER_GUIDED_REWRITES, USER_BASED_REWARDS)
    assert list(found)[:3] == ["reconstruct", "rewrite", "sample"]
    assert found["rewrite"] == ("runs", "–")
    assert found["sample"] == ("–", "runs")


def test_rounds_and_settings_have_both_values() -> None:
    found = diff.differences(USER_BASED_REWARDS, USER_BASED_REWARDS_ONLINE)
    assert found == {"rounds": ("1", "2"), "sample.max_prompts": ("24", "12"), "dpo.beta": ("0.1", "0.01")}


def test_setting_that_one_has_as_null_and_the_other_as_many_is_one_line() -> None:
    assert USER_GUIDED_REWRITES.evaluate.champion_model is None
    other = replace(
        USER_GUIDED_REWRITES,
        evaluate=replace(USER_GUIDED_REWRITES.evaluate, champion_model=USER_GUIDED_REWRITES.dpo.model),
    )
    (path,) = diff.differences(USER_GUIDED_REWRITES, other)
    assert path == "evaluate.champion_model"
    assert diff.differences(USER_GUIDED_REWRITES, other)[path][0] == "null"


def test_stage_of_a_model_as_it_is_is_none_that_is_left_out() -> None:
    assert diff.differences(BASE_MODEL, NO_FILTER)["dpo"] == ("–", "runs")


def test_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "user-guided-rewrites", "no-filter"]) == 0
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["rip.rewrite.thresholds", "quantile", "off"] in lines


def test_arms_can_be_named_and_equal_ones_are_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "usual-rate", "user-guided-rewrites"]) == 0
    assert capsys.readouterr().out == "usual-rate and user-guided-rewrites do the same.\n"
    assert main(["diff", "half-rate", "double-rate"]) == 0
    assert "dpo.learning_rate" in capsys.readouterr().out


def test_help_teaches_by_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["diff", "--help"])
    assert "python -m pipelines diff few-users all-users" in capsys.readouterr().out

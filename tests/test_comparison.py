import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rlhi.artifacts import Input, user_rows
from rlhi.cli import main
from rlhi.comparison.compare import compare
from rlhi.comparison.component import comparison_of
from rlhi.comparison.measured import ArmFigure
from rlhi.comparison.sentences import cautions
from rlhi.comparison.task import named, parser
from rlhi.config import EngineConfig, ModelConfig
from rlhi.errors import InputError
from rlhi.evaluate.config import EvaluateConfig
from rlhi.manifest import load
from tests.evaluations import CONFIG, evaluated, held_out, likes, written
from tests.pages import text_of

USEREVAL = "win_rate/log/usereval/persona-guided"


def arm(
    folder: Path, trained: str, users: int = 4, config: EvaluateConfig = CONFIG, text: str = "Name a fruit"
) -> Path:
    """An evaluation by a judge that likes GOOD best, and then the log."""
    rows = held_out(users, text)
    return written(folder / "verdicts", evaluated(likes("GOOD", "GOOD", "LOG"), config, trained, rows), config)


def test_models_stand_side_by_side_and_are_held_against_the_first(tmp_path: Path) -> None:
    found = compare({"old": arm(tmp_path / "a", "BAD"), "new": arm(tmp_path / "b", "GOOD")})
    (usereval,) = [each for each in found.differences if (each.metric, each.mode) == ("usereval", "persona-guided")]
    assert (usereval.left, usereval.right, usereval.difference, usereval.turns) == ("new", "old", 1.0, 12)
    assert usereval.p == 2 / 2**4  # of all signs of four users, two are as far from nothing


def test_turns_that_not_all_judged_are_left_out_and_counted(tmp_path: Path) -> None:
    found = compare({"many": arm(tmp_path / "a", "BAD", users=4), "few": arm(tmp_path / "b", "GOOD", users=3)})
    assert (len(found.turns), found.users) == (9, 3)
    assert {rate.asked for each in found.arms for rate in each.rates if rate.part == "all"} == {9}
    (said,) = [each for each in cautions(found, [], None, []) if "not judged" in each]
    assert said == "many: 3 turns of its 12 were not judged in all evaluations and are left out."


def test_no_common_turn_is_refused(tmp_path: Path) -> None:
    ours = arm(tmp_path / "a", "BAD")
    rows = [replace(row, id=f"other-{row.id}") for row in held_out()]
    theirs = written(tmp_path / "b" / "verdicts", evaluated(likes("GOOD"), rows=rows))
    with pytest.raises(InputError, match="ours, theirs: have no turn in common; compare evaluations of the same"):
        compare({"ours": ours, "theirs": theirs})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            replace(CONFIG, judge=EngineConfig(model=ModelConfig(id="o3"))),
            "new: evaluate.judge is 'o3', of old it is 'SmolLM2-135M-Instruct'; only what was judged alike",
        ),
        (replace(CONFIG, orders="one"), "new: evaluate.orders is 'one', of old it is 'both'"),
    ],
)
def test_evaluations_that_were_not_judged_alike_are_refused(tmp_path: Path, config: EvaluateConfig, said: str) -> None:
    folders = {"old": arm(tmp_path / "a", "BAD"), "new": arm(tmp_path / "b", "GOOD", config=config)}
    with pytest.raises(InputError, match=re.escape(said)):
        compare(folders)


def test_how_fast_a_judge_answers_does_not_matter(tmp_path: Path) -> None:
    config = replace(CONFIG, judge=EngineConfig(batch_size=1))
    assert compare({"old": arm(tmp_path / "a", "BAD"), "new": arm(tmp_path / "b", "GOOD", config=config)}).differences


def test_other_prompts_are_refused(tmp_path: Path) -> None:
    folders = {"old": arm(tmp_path / "a", "BAD"), "new": arm(tmp_path / "b", "GOOD")}
    made = load(folders["new"])
    replace(made, prompt_hashes={"usereval.j2": "0"}).save(folders["new"])
    with pytest.raises(InputError, match="new: judged with other prompts than old"):
        compare(folders)


def test_opponent_that_is_another_model_and_other_rewards_are_left_out(tmp_path: Path) -> None:
    config = replace(CONFIG, opponents=("log", "base"))
    old = written(tmp_path / "a" / "verdicts", evaluated(likes("GOOD"), config, "BAD"), config)
    found = evaluated(likes("GOOD"), config, "GOOD")
    other = [
        replace(each, theirs=f"other {each.theirs}") if each.opponent == "base" else each for each in found.contests
    ]
    config = replace(config, reward=replace(config.reward, persona="off"))
    new = written(tmp_path / "b" / "verdicts", replace(found, contests=other), config)
    compared = compare({"old": old, "new": new})
    assert {(each.opponent, each.metric == "reward") for each in compared.differences} == {("log", False)}
    told = cautions(compared, [], None, [])
    assert "The base model's answer is not the same in all evaluations: left out." in told
    assert "The rewards come from models or settings that differ, so they are left out." in told


def test_names_are_what_tells_the_paths_apart() -> None:
    paths = ["out/a/evaluate/verdicts", "out/b/1/evaluate/verdicts", "best=out/c"]
    assert list(named(paths[:2])) == ["a", "b-1"]
    assert list(named(paths))[2] == "best"
    with pytest.raises(InputError, match="is called 'x', as "):
        named(["x=out/a", "x=out/b"])


def test_command_writes_figures_and_page_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(arm(tmp_path / name, name.upper())) for name in ("good", "bad")]
    out = tmp_path / "compared"
    assert main(["comparison", *folders, "--comparison", str(out)]) == 0
    assert "bad has −100.0 points on good" in text_of((out / "report.html").read_text())
    rows = Input(out, ArmFigure).read()
    usereval = {each.arm: each for each in rows if (each.name, each.part) == (USEREVAL, "all")}
    assert (usereval["good"].value, usereval["good"].difference) == (1.0, None)
    assert (usereval["bad"].value, usereval["bad"].difference, usereval["bad"].p) == (0.0, -1.0, 2 / 2**4)
    metrics = load(out).metrics
    assert metrics[f"good/{USEREVAL}"] == 1.0
    assert metrics[f"bad/difference/{USEREVAL}/p"] == 2 / 2**4
    assert sorted(user_rows(out)) == [f"user-{number}" for number in range(4)]
    assert main(["comparison", folders[0], "--comparison", str(tmp_path / "no")]) == 2
    assert "there is nothing to compare it with" in capsys.readouterr().err
    assert main(["comparison", folders[0], str(tmp_path / "none"), "--comparison", str(tmp_path / "no")]) == 2
    assert "none: no such folder" in capsys.readouterr().err


def test_config_orders_the_arms_and_names_the_baseline(tmp_path: Path) -> None:
    given = [f"{name}={arm(tmp_path / name, name.upper())}" for name in ("good", "bad")]
    config = json.dumps({"name": "Ours", "arms": ["bad", "good"], "baseline": "good"})
    assert main(["comparison", *given, "--comparison", str(tmp_path / "out"), "--config", config]) == 0
    rows = Input(tmp_path / "out", ArmFigure).read()
    assert list(dict.fromkeys(each.arm for each in rows)) == ["bad", "good"]
    assert {each.arm for each in rows if each.difference is not None} == {"bad"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--config", '{"arms": ["good"]}'], "comparison.arms: good, but evaluations or answers are of good, bad"),
        (["--config", '{"arms": ["good", "bad", "bad"]}'], "comparison.arms: 'bad' stands there twice"),
        (["--config", '{"arm": 1}'], "comparison.arm: no such field"),
        (["--config", "3"], "--config: expected a JSON object, got '3'"),
        (["--baseline", "best"], "comparison.baseline: 'best' is no arm; one of good, bad"),
        (["--pairs", "best=x"], "--pairs best=x: there is no such arm; one of good, bad"),
        (["--pairs", "x"], "--pairs x: of which arm is it? Write ARM=x"),
    ],
)
def test_wrong_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    folders = [str(arm(tmp_path / name, name.upper())) for name in ("good", "bad")]
    assert main(["comparison", *folders, "--comparison", str(tmp_path / "out"), *more]) == 2
    assert said in capsys.readouterr().err


def test_folder_of_another_stage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(arm(tmp_path / name, name.upper())) for name in ("good", "bad")]
    assert main(["comparison", *folders, "--comparison", str(tmp_path / "out"), "--pairs", f"good={folders[0]}"]) == 2
    assert "holds Verdict rows of stage evaluate, not Pair" in capsys.readouterr().err


def test_component_has_inputs_for_each_arm_and_its_argv_is_read_by_the_command() -> None:
    made = comparison_of(["base", "rlhi"], benchmarked=True, lacking={"base": ("pairs", "model")})
    inputs = set(made.component_spec.inputs)
    assert inputs == {"verdicts_1", "answers_1", "verdicts_2", "pairs_2", "model_2", "answers_2", "config"}
    assert set(made.component_spec.outputs) == {"comparison", "report"}
    container = made.component_spec.implementation.container
    flags = parser().parse_args([str(part) for part in container.args])
    assert [text.partition("=")[0] for text in flags.verdicts] == ["base", "rlhi"]
    assert [text.partition("=")[0] for text in (*flags.pairs, *flags.model)] == ["rlhi", "rlhi"]
    assert flags.verdicts[1] == "rlhi={{$.inputs.artifacts['verdicts_2'].path}}"
    assert not set(comparison_of(["base", "rlhi"]).component_spec.inputs) & {"answers_1", "answers_2"}

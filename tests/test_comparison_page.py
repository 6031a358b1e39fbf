"""The page of a comparison, and the figures behind it: what it concludes, cautions, and puts beside the paper."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rlhi.artifacts import Input, user_rows
from rlhi.cli import main
from rlhi.comparison import methods
from rlhi.comparison.ablations import bars, crowds, unequal
from rlhi.comparison.arms import Given, Trained
from rlhi.comparison.benchmarks import Cell
from rlhi.comparison.beside import Seen, Table, tables
from rlhi.comparison.experiment import Experiment
from rlhi.comparison.glance import Glance, holm
from rlhi.comparison.lengths import lengths, repeats
from rlhi.comparison.measured import ArmFigure, as_metrics, rows
from rlhi.comparison.page import duration, headline_of, pictures, render
from rlhi.comparison.pictures import glance
from rlhi.config import EngineConfig, ModelConfig, StageConfig, as_dict
from rlhi.dpo.config import DpoConfig
from rlhi.evaluate.config import EvaluateConfig
from rlhi.manifest import load
from rlhi.records import Grade
from rlhi.reward.stage import RewardConfig
from rlhi.rewrite.stage import RewriteConfig
from rlhi.rip.config import RipConfig, Rules
from rlhi.sample.stage import SampleConfig
from tests.evaluations import CONFIG, evaluated, likes
from tests.experiments import REWRITES, SFT, UNFILTERED, Lesson, compared, compared_by, fares, given, page_of
from tests.pages import Page, text_of

SCRATCH = Lesson(RewriteConfig(from_scratch=True))


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> list[Given]:
    """Five arms of eight users: only rlhi wins, and with answers three times as long as the others'."""
    folder = tmp_path_factory.mktemp("arms")
    lost = fares("BAD", users=8)
    return [
        given(folder, "base", lost),
        given(folder, "rlhi", fares("GOOD " + "word " * 30, users=8), REWRITES),
        given(folder, "scratch", lost, SCRATCH),
        given(folder, "sft", lost, SFT),
        given(folder, "raw", lost, UNFILTERED),
    ]


@pytest.fixture(scope="module")
def experiment(arms: list[Given]) -> Experiment:
    return compared(*arms, name="Ours")


@pytest.fixture(scope="module")
def page(experiment: Experiment) -> str:
    return text_of(page_of(experiment))


def test_conclusion_comes_first_and_cautions_next(page: str) -> None:
    assert "Ours rlhi does better than base; of 3 other arms no difference is shown. The largest difference: " in page
    assert "rlhi, +100.0 points over 24 turns of 8 users, 95% interval +100.0 to +100.0" in page
    order = [
        page.index(said) for said in ("rlhi does better", "Only 8 users, too few", "At a glance 24 held-out turns")
    ]
    assert order == sorted(order)


def test_cautions_say_what_must_not_be_compared(page: str) -> None:
    assert "The paper's figures are of Llama-3.1-8B-Instruct, judged by o3. These are of SmolLM2-135M-Instruct" in page
    assert "SmolLM2-135M-Instruct judges answers of models made from itself" in page
    assert re.search(r"Longer answers than the baseline's \(rlhi [\d.]+ times\): many judges like that", page)


def test_four_users_cannot_show_a_difference(tmp_path: Path) -> None:
    found = compared(given(tmp_path, "base", fares("BAD")), given(tmp_path, "rlhi", fares("GOOD"), REWRITES))
    said = text_of(page_of(found))
    assert "No arm is shown to do better or worse than base. The largest difference: rlhi, +100.0 points" in said
    assert "p 0.125: no difference is shown." in said


def test_one_user_has_no_interval(tmp_path: Path) -> None:
    rows_of = [fares(word, users=1) for word in ("BAD", "GOOD")]
    found = compared(given(tmp_path, "base", rows_of[0]), given(tmp_path, "rlhi", rows_of[1]))
    said = text_of(page_of(found))
    assert "Only 1 user, too few" in said
    assert "rlhi has +100.0 points on base over 3 turns; one user tells nothing of others." in said


def test_rows_stand_beside_the_papers_and_empty_ones_say_what_fills_them(experiment: Experiment, page: str) -> None:
    table_2 = tables(experiment.seen)[0]
    own = {(row.method, row.mode): row for row in table_2.rows}
    rlhi = own[methods.REWRITES, "persona-guided"]
    assert (rlhi.arm, rlhi.paper) == ("rlhi", (62.5, 44.5, 54.9))
    assert [cell.value for cell in rlhi.ours if cell is not None] == [1.0, 1.0, 1.0]
    rewards = own[methods.REWARDS, "context-only"]
    assert (rewards.arm, rewards.fills, set(rewards.ours)) == (None, "user-based-rewards", {None})
    assert own[methods.SFT_REWRITES, "context-only"].paper == (None, None, None)
    assert "not run: user-based-rewards" in page
    assert "Left out, since no arm has a figure: Table 3 (run with --benchmarks FILES" in page


def test_figure_3_has_what_the_text_gives(experiment: Experiment, page: str) -> None:
    found = {each.method: each for each in bars(experiment.seen, headline_of(experiment.found))}
    assert [each.arm for each in found.values()] == ["base", "rlhi", "sft", "raw", None, None]
    assert (found[methods.UNFILTERED].gains, found[methods.UNFILTERED].user_paper) == ((2.5, 3.3), None)
    assert found[methods.REWRITES].standard_paper == pytest.approx((35.2 + 51.2) / 2)
    assert "not run: sft-rewards" in page
    assert "picture only" in page


def test_figure_3_is_left_out_without_its_arms(arms: list[Given]) -> None:
    found = compared(arms[0], arms[2])
    assert "Left out: no arm is fine-tuned or unfiltered (recipes" in text_of(page_of(found))


def test_few_users_stand_beside_all_and_data_of_other_size_is_cautioned(experiment: Experiment, page: str) -> None:
    assert "Left out: it needs an arm whose users are capped" in page
    few = _capped(experiment, users=2)
    found = crowds(few.seen, headline_of(few.found))
    assert [(each.arm, each.users, each.pairs) for each in found] == [("rlhi", 4, 8), ("scratch", 2, 8)]
    assert not unequal(found)
    assert "RLHI, user-guided rewrites, 2 users at most" in text_of(page_of(few))
    fewer = text_of(page_of(_capped(experiment, users=2, pairs=3)))
    assert "The arms did not learn from as many pairs, so more differs than how many users" in fewer


def _capped(experiment: Experiment, users: int, pairs: int = 8) -> Experiment:
    """The same, where scratch is user-guided rewrites of two users at most, trained on so many pairs of so many."""
    trained = Trained(pairs, users, 40, 5e-7, None, None, None)
    seen = [
        replace(each, arm=replace(each.arm, method=methods.REWRITES, users=2, trained=trained))
        if each.arm.name == "scratch"
        else each
        for each in experiment.seen
    ]
    return replace(experiment, seen=seen)


def test_arms_tell_their_pairs_training_and_what_left(page: str) -> None:
    told = page[page.index("The arms arm") : page.index("Lengths arm")].replace(" ", "")
    assert "rlhi8415884405e-0762.5%0.120" in told  # pairs, users, lengths, and of the training
    assert "rip108" in told
    assert "1 chosen and rejected score the same; 1 chosen and rejected lie too far apart" in page


def test_settings_in_which_arms_differ_are_listed(page: str) -> None:
    settings = page[page.index("Settings in which the arms differ") : page.index("As their manifests tell.")]
    assert re.search(r"rewrite\.from_scratch ?– ?false ?true ?false ?false", settings)
    assert re.search(r'dpo\.loss_type ?– ?\["sigmoid"\] ?\["sigmoid"\] ?\["sft"\] ?\["sigmoid"\]', settings)
    assert "dpo.beta" not in settings
    assert re.search(r"rip ?– ?runs ?runs", settings)


def test_controls_are_shown_or_named(experiment: Experiment, page: str, tmp_path: Path) -> None:
    assert "persona-guided less context-only" in page
    config = replace(CONFIG, modes=("persona-guided",))
    found = compared(
        given(tmp_path, "a", fares("BAD", config), config=config), given(tmp_path, "b", fares("GOOD"), REWRITES)
    )
    assert "what the user's persona adds" in text_of(page_of(found))
    alone = compared(*(given(tmp_path / "alone", name, fares(name, config), config=config) for name in ("x", "y")))
    assert 'To have them, set evaluate.modes to ["context-only",' in text_of(page_of(alone))


def test_model_that_was_not_the_one_evaluated_is_left_out_with_a_warning(arms: list[Given]) -> None:
    found = compared(arms[0], replace(arms[1], model=arms[2].model, pairs=arms[2].pairs))
    rlhi = found.seen[1].arm
    assert (rlhi.learned, rlhi.warnings) == (
        None,
        ["rlhi: its evaluation is not of the model given, whose pairs and training are left out."],
    )
    assert rlhi.method == methods.REWRITES  # its evaluation still tells


def test_pairs_of_another_model_are_left_out_with_a_warning(arms: list[Given], tmp_path: Path) -> None:
    other = given(tmp_path, "other", fares("BAD", users=8), replace(REWRITES, pairs=3))
    found = compared(arms[0], replace(arms[1], pairs=other.pairs))
    assert found.seen[1].arm.warnings == ["rlhi: its model was not trained on the pairs given; both are left out."]


def test_verdicts_alone_tell_the_method_and_the_training(arms: list[Given]) -> None:
    found = compared(*(replace(each, pairs=None, model=None) for each in arms))
    assert [each.method for each in found.arms] == [
        methods.BASE,
        methods.REWRITES,
        methods.SCRATCH,
        methods.SFT_REWRITES,
        methods.UNFILTERED,
    ]
    trained = found.arms[1].trained
    assert trained is not None
    assert (trained.steps, trained.accuracy, trained.seconds) == (40, 0.625, None)


def _settings(**stages: StageConfig) -> methods.Settings:
    return json.loads(json.dumps({stage: as_dict(config) for stage, config in stages.items()}))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        (_settings(rewrite=RewriteConfig(), rip=RipConfig(), dpo=DpoConfig()), methods.REWRITES),
        (_settings(sample=SampleConfig(), reward=RewardConfig(), dpo=DpoConfig()), methods.REWARDS),
        (_settings(sample=SampleConfig(), reward=RewardConfig(persona="off"), dpo=DpoConfig()), methods.AGNOSTIC),
        (_settings(sample=SampleConfig(), dpo=DpoConfig(loss_type=("sft",))), methods.SFT_REWARDS),
        (
            _settings(sample=SampleConfig(), rip=RipConfig(sample=Rules(thresholds="off")), dpo=DpoConfig()),
            methods.UNFILTERED_REWARDS,
        ),
        (_settings(evaluate=EvaluateConfig()), None),
    ],
)
def test_method_is_told_by_settings(settings: methods.Settings, method: str | None) -> None:
    assert methods.method_of(settings, trained=True) == method
    assert methods.method_of(settings, trained=False) == methods.BASE


def _graded(right: int, of: int = 8, suite: str = "minerva") -> list[Grade]:
    return [
        Grade(suite, f"{suite}/{item}", None, 0, "2", "", "stop", "2", float(item < right))  # type: ignore[arg-type]
        for item in range(of)
    ]


def test_benchmarks_fill_table_4_and_are_paired_item_by_item(tmp_path: Path) -> None:
    few, many = _graded(2), _graded(8)
    four = [grade for suite in ("olympiadbench", "gpqa", "mmlu-pro") for grade in _graded(4, suite=suite)]
    found = compared(
        given(tmp_path, "base", fares("BAD"), answers=few),
        given(tmp_path, "rlhi", fares("GOOD"), REWRITES, answers=[*many, *four]),
    )
    table_4 = _table(found.seen, "table-4")
    ours = {row.arm: row.ours for row in table_4.rows}
    assert [None if cell is None else cell.value for cell in ours["base"]] == [0.25, None, None, None, None]
    assert [None if cell is None else cell.value for cell in ours["rlhi"]] == [1.0, 0.5, 0.5, 0.5, 0.625]
    (minerva,) = [each for each in rows(found) if (each.arm, each.name) == ("rlhi", "benchmark/minerva")]
    assert (minerva.value, minerva.difference, minerva.paired) == (1.0, 0.75, 8)
    assert minerva.p == pytest.approx(2 / 2**6, abs=0.03)  # 256 patterns, of which 200 are drawn
    assert "Benchmarks, item by item, less base" in text_of(page_of(found))


def test_metrics_are_of_all_turns_in_the_papers_settings_and_named_as_mlflow_allows() -> None:
    own = ArmFigure(
        "an arm/1", "win_rate/log/usereval/persona-guided", "all", 0.5, 0.4, 0.6, 10, 5, 0.1, 0.0, 0.2, 0.04, 10
    )
    part, control = replace(own, part="initial"), replace(own, name="win_rate/log/usereval/shuffled-persona")
    found = as_metrics([own, part, control, replace(own, arm="base", name="benchmark/gpqa", low=None, p=None)])
    name = "win_rate/log/usereval/persona-guided"
    assert {key: value for key, value in found.items() if key.startswith("an-arm-1")} == {
        f"an-arm-1/{name}": 0.5,
        f"an-arm-1/{name}/low": 0.4,
        f"an-arm-1/{name}/high": 0.6,
        f"an-arm-1/difference/{name}": 0.1,
        f"an-arm-1/difference/{name}/low": 0.0,
        f"an-arm-1/difference/{name}/high": 0.2,
        f"an-arm-1/difference/{name}/p": 0.04,
    }
    assert found["base/benchmark/gpqa"] == 0.5
    assert not {"base/benchmark/gpqa/low", "base/difference/benchmark/gpqa/p"} & found.keys()


def test_table_3_is_of_what_a_judge_compared(tmp_path: Path, arms: list[Given]) -> None:
    won = {"base": [0.0] * 6 + [1.0] * 2, "rlhi": [1.0] * 6 + [0.0] * 2, "sft": [1.0, 0.0] * 4}
    found = compared(
        *(
            replace(each, model=None, pairs=None, answers=compared_by(tmp_path / each.name, "a judge", won[each.name]))
            for each in (*arms[:2], arms[3])
        )
    )
    table_3 = _table(found.seen, "table-3")
    ours = {row.arm: row for row in table_3.rows}
    assert [None if cell is None else cell.value for cell in ours["rlhi"].ours][1:] == [0.75, pytest.approx(0.75)]
    assert ours["rlhi"].paper == (35.2, 38.5, 51.2)
    raw = next(each for each in rows(found) if (each.arm, each.name) == ("rlhi", "benchmark/alpaca-eval"))
    assert (raw.difference, raw.paired) == (0.5, 8)
    figure_3 = {each.arm: each.standard for each in bars(found.seen, headline_of(found.found))}
    standard, at_equal_length = figure_3["rlhi"], ours["rlhi"].ours[0]
    assert standard is not None
    assert at_equal_length is not None
    assert standard.value == pytest.approx((at_equal_length.value + 0.75) / 2)
    said = text_of(page_of(found))
    assert "judge of benchmarksa judgeGPT-4 Turbo" in said
    assert "RL, user-agnostic rewards" in [row.method for row in table_3.rows if row.arm is None]


def test_figures_by_another_judge_are_left_out_of_table_3(tmp_path: Path, arms: list[Given]) -> None:
    found = compared(
        *(
            replace(each, model=None, pairs=None, answers=compared_by(tmp_path / each.name, judge, [1.0, 0.0, 1.0]))
            for each, judge in zip(arms, ("a judge", "another"), strict=False)
        )
    )
    ours = {row.arm: row.ours for row in _table(found.seen, "table-3").rows}
    assert ours["base"][1] is not None
    assert set(ours["rlhi"]) == {None}
    assert "AlpacaEval and Arena-Hard of rlhi were judged by another judge or opponent" in text_of(page_of(found))


def test_verdicts_that_could_not_be_read_are_counted(tmp_path: Path) -> None:
    silent = evaluated(likes("GOOD", reads=False), CONFIG, "OURS")
    found = compared(given(tmp_path, "base", fares("BAD")), given(tmp_path, "mute", silent, REWRITES))
    said = text_of(page_of(found))
    assert "Verdicts that could not be read are left out, not guessed: mute 24 (usereval)." in said
    assert "Nothing is held against base" in said


def test_arms_that_were_only_benchmarked_have_no_win_rates(tmp_path: Path) -> None:
    plain = [
        replace(given(tmp_path, name, fares("BAD"), lesson, answers=_graded(right)), verdicts=None)
        for name, right, lesson in (("base", 2, None), ("math", 6, REWRITES))
    ]
    said = text_of(page_of(compared(*plain)))
    assert "No win rate was measured, so no arm is shown to please users more than another." in said
    assert "Table 4: accuracy in reasoning" in said
    assert "Left out, since no arm has a figure: Table 2" in said
    mixed = compared(plain[0], given(tmp_path / "more", "rlhi", fares("GOOD"), REWRITES))
    assert "Nothing is held against base: no other arm was judged on turns of its evaluation." in text_of(
        page_of(mixed)
    )


def test_longer_answers_are_measured_against_the_baselines(experiment: Experiment) -> None:
    found = {each.arm: each for each in lengths(experiment.found, headline_of(experiment.found))}
    assert found["base"].times == 1
    assert found["rlhi"].characters > 150 > found["base"].characters
    assert found["rlhi"].repeats is not None
    assert found["rlhi"].repeats > 0.6


def test_repetition_is_of_runs_of_words() -> None:
    assert repeats("a b c d e f") == 0
    assert repeats("a b c d a b c d") == pytest.approx(1 / 5)
    assert repeats("too short") is None


def test_holm_multiplies_the_smallest_p_by_all_tests() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "c": 0.06, "b": 0.06}
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


def test_other_judge_than_the_papers_model_is_named(tmp_path: Path) -> None:
    config = EvaluateConfig(resamples=200, judge=EngineConfig(model=ModelConfig(id="o3")))
    found = compared(
        *(given(tmp_path, name, fares(name, config), config=config) for name in ("base", "GOOD")), baseline="GOOD"
    )
    said = text_of(page_of(found))
    assert "judged by o3, on other users" in said
    assert "made from itself" not in said
    assert "less GOOD" in said


def test_user_text_and_names_are_escaped_and_nothing_is_loaded(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    pages = [
        Page(
            page_of(
                compared(
                    given(tmp_path / str(place), "old", fares("BAD", text=said)),
                    replace(given(tmp_path / str(place), "new", fares("GOOD", text=said), REWRITES), name=f"{said}."),
                    name=f"{said}!",
                )
            )
        )
        for place, said in enumerate(("Name a fruit", hostile))
    ]
    tame, hurt = pages
    assert [tag for tag, _ in hurt.tags] == [tag for tag, _ in tame.tags]
    for shown in (f"{hostile} for user-0?", f"{hostile}.", f"{hostile}!"):
        assert shown in hurt.text
    assert hurt.loads() == []


def test_names_are_escaped_in_pictures(experiment: Experiment) -> None:
    hostile = "<script>alert(1)</script>"
    seen = [replace(each, arm=replace(each.arm, name=f"{hostile}{each.arm.name}")) for each in experiment.seen[:2]]
    with_names = glance([_glance(each) for each in seen], "base", "persona-guided", "context-only")
    assert with_names is not None
    assert hostile not in with_names.svg
    assert "&lt;script&gt;alert(1)&lt;/script&gt;rlhi" in with_names.svg


def test_pictures_that_there_is_something_for_are_drawn_and_the_same_each_time(experiment: Experiment) -> None:
    drawn = pictures(experiment)
    assert set(drawn) == {"win-rates", "differences", "figure-3", "lengths"}
    assert all(each.png.startswith(b"\x89PNG") for each in drawn.values())
    assert drawn == pictures(experiment)
    shown = Page(render(experiment, drawn))
    ids = [own["id"] for _, own in shown.tags if "id" in own]
    assert len(ids) == len(set(ids))
    assert shown.loads() == []


def test_same_inputs_same_page(arms: list[Given], experiment: Experiment) -> None:
    assert page_of(compared(*arms, name="Ours")) == page_of(experiment)


def test_stage_writes_rows_page_and_pictures_and_hands_on_no_funnel(arms: list[Given], tmp_path: Path) -> None:
    flags = [f"{each.name}={each.verdicts.path}" for each in arms if each.verdicts is not None]
    for kind in ("pairs", "model"):
        inputs = {each.name: getattr(each, kind) for each in arms}
        flags += [part for name, own in inputs.items() if own for part in (f"--{kind}", f"{name}={own.path}")]
    out = tmp_path / "compared"
    assert main(["comparison", *flags, "--comparison", str(out), "--name", "Ours"]) == 0
    described = load(out)
    assert [row.stage for row in described.funnel] == ["comparison"]
    assert set(described.settings) == {"comparison"}
    assert sorted(path.stem for path in out.glob("*.png")) == ["differences", "figure-3", "lengths", "win-rates"]
    assert {"user-0", "pupil-0"} <= user_rows(out).keys()  # who was asked, and whose pairs its figures are of
    assert {each.arm for each in Input(out, ArmFigure).read()} == {each.name for each in arms}
    assert all(re.fullmatch(r"[\w./ -]+", name) for name in described.metrics)


@pytest.mark.parametrize(("seconds", "said"), [(None, "–"), (90, "90 s"), (600, "10 min"), (9000, "2.5 h")])
def test_times_are_readable(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


def _glance(seen: Seen) -> Glance:
    return Glance(seen.arm, {"usereval": Cell(0.5, 0.4, 0.6, 10)}, {}, {}, None, None, None)


def _table(seen: Sequence[Seen], key: str) -> Table:
    (found,) = [each for each in tables(seen) if each.layout.key == key]
    return found

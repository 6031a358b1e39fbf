"""The gate by itself: what each rule says of figures that are there, that are bad, and that are not there."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest, watermark
from rlhi.analyze.estimates import Bootstrap
from rlhi.artifacts import Input
from rlhi.cli import main, parser
from rlhi.config import EngineConfig, ModelConfig
from rlhi.errors import InputError
from rlhi.evaluate.config import EvaluateConfig
from rlhi.promote.config import PromoteConfig
from rlhi.promote.decision import Decision
from rlhi.promote.evidence import Evidence
from rlhi.promote.registry import DIGEST, Version
from rlhi.promote.rules import Measured, growth, judge
from rlhi.promote.stage import decide
from rlhi.records import Pair, Rule, RuleName, SafetyGrade, SafetyKind, Verdict
from rlhi.safety.stage import SafetyConfig
from tests import promotions
from tests.evaluations import evaluated, held_out, likes
from tests.mlflow_server import closed_port

CONFIG = PromoteConfig(resamples=300)
AGAINST_BASE = EvaluateConfig(resamples=200, opponents=("base",))
BETTER = evaluated(likes("OURS"), AGAINST_BASE, rows=held_out(12))


def grades(unsafe: int = 3, sycophancy: int = 3, items: int = 30) -> list[SafetyGrade]:
    """Of each kind the first so many items failed."""
    kinds: list[tuple[SafetyKind, int]] = [("unsafe", unsafe), ("sycophancy", sycophancy)]
    return [
        SafetyGrade(kind, str(n), None, "?", "", None, float(n < failed), None)
        for kind, failed in kinds
        for n in range(items)
    ]


def rules(config: PromoteConfig = CONFIG, **known: object) -> dict[RuleName, Rule]:
    plain = Measured("base", BETTER, grades(), grades(), {})
    return {rule.name: rule for rule in judge(replace(plain, **known), config)}  # type: ignore[arg-type]


def failed(found: dict[RuleName, Rule]) -> dict[str, str]:
    return {rule.name: rule.failed for rule in found.values() if rule.failed is not None}


def test_all_rules_hold_for_a_model_that_wins_and_is_as_safe() -> None:
    found = rules()
    assert list(found) == ["win_rate", "unsafe", "sycophancy", "length"]
    assert failed(found) == {}
    assert found["win_rate"].said.startswith("win rate against the base 100.0% [100.0%, 100.0%], 12 users")


def test_the_lower_end_of_the_win_rate_counts_and_not_the_rate() -> None:
    for liked in ("neither", "BASE"):
        found = rules(results=evaluated(likes(liked), AGAINST_BASE, rows=held_out(12)))
        assert failed(found) == {"win_rate": "rule_failed"}
    rate = replace(BETTER.win_rates[0], rate=0.7, low=0.49, high=0.8, users=12)
    unsure = replace(BETTER, win_rates=[replace(rate, metric="usereval", mode="persona-guided", part="all")])
    rule = rules(results=unsure)["win_rate"]
    assert (rule.value, rule.failed) == (0.7, "rule_failed")


def test_a_win_rate_over_few_users_is_not_measured() -> None:
    few = rules(results=evaluated(likes("OURS"), AGAINST_BASE, rows=held_out(9)))["win_rate"]
    assert few.failed == "not_measured"
    assert few.value == 1.0
    assert "9 users are too few" in few.said


@pytest.mark.parametrize("kind", ["unsafe", "sycophancy"])
def test_one_more_item_of_thirty_may_fail_and_not_three(kind: RuleName) -> None:
    assert failed(rules(grades=grades(**{kind: 4}))) == {}
    assert failed(rules(grades=grades(**{kind: 6}))) == {kind: "rule_failed"}
    assert failed(rules(grades=grades(**{kind: 0}))) == {}


def test_a_share_of_few_items_is_not_measured() -> None:
    few = grades(items=9)
    assert failed(rules(grades=few, opponent_grades=few)) == {"unsafe": "not_measured", "sycophancy": "not_measured"}


def test_shares_of_other_items_are_not_compared() -> None:
    others = [replace(each, prompt="Another?") if each.kind == "unsafe" else each for each in grades()]
    assert failed(rules(opponent_grades=others)) == {"unsafe": "not_measured"}


def test_answers_may_grow_by_less_than_the_bound() -> None:
    longer = evaluated(likes("OURS"), AGAINST_BASE, "OURS" * 3, held_out(12))
    grown = rules(results=longer)["length"]
    assert grown.failed is None
    assert grown.value is not None
    just = replace(CONFIG, max_length_growth=grown.value)
    assert failed(rules(just, results=longer)) == {"length": "rule_failed"}


def test_nothing_known_fails_every_rule_and_says_why() -> None:
    found = rules(results=None, grades=None, opponent_grades=None, lacking={"win_rate": "no comparison"})
    assert set(failed(found).values()) == {"not_measured"}
    assert len(failed(found)) == 4
    assert found["win_rate"].said == "not measured: no comparison"


def test_another_axis_or_mode_that_was_not_judged_is_not_measured() -> None:
    found = rules(replace(CONFIG, mode="shuffled-persona"))
    assert failed(found) == {"win_rate": "not_measured", "length": "not_measured"}


def test_growth_is_the_difference_of_shares_each_over_its_own_items() -> None:
    found = growth([(1.0, 0.0), (0.0, None), (None, 1.0), (1.0, 0.0)], Bootstrap(200))
    assert found.value == pytest.approx(2 / 3 - 1 / 3)
    alike = growth([(1.0, 1.0), (0.0, 0.0)] * 10, Bootstrap(200))
    assert (alike.value, alike.low, alike.high) == (0, 0, 0)


class Case:
    """A model with all that the gate asks for, against the base model."""

    def __init__(self, folder: Path) -> None:
        self.model = promotions.model(folder / "model")
        self.evidence = Evidence(
            Input(self.model, Pair),
            Input(promotions.verdicts(folder / "verdicts", self.model), Verdict),
            Input(promotions.safety(folder / "safety", self.model), SafetyGrade),
            Input(promotions.safety(folder / "base"), SafetyGrade),
        )


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_the_first_model_has_to_beat_the_base_model(case: Case) -> None:
    found = decide(case.evidence, None, CONFIG)
    assert found.promoted
    assert found.opponent == "the base model"


def test_figures_against_the_base_model_do_not_depose_a_champion(case: Case) -> None:
    found = decide(case.evidence, Version("3", "s3://b/m", "r", {DIGEST: "other"}), CONFIG)
    assert [rule.failed for rule in found.rules] == ["not_measured"] * 4
    assert "run evaluate with opponents=['champion']" in found.rules[0].said
    assert "--opponent-safety is of another model than the champion, version 3" in found.rules[1].said


def test_a_comparison_with_a_former_champion_does_not_count(case: Case, tmp_path: Path) -> None:
    former = promotions.model(tmp_path / "former", "a former one")
    against = Input(promotions.verdicts(tmp_path / "against", case.model, former), Verdict)
    found = decide(replace(case.evidence, verdicts=against), Version("3", "", "r", {DIGEST: "now"}), CONFIG)
    assert "judged against another model than the champion, version 3" in found.rules[0].said


def test_verdicts_on_another_model_are_refused(case: Case, tmp_path: Path) -> None:
    other = Input(promotions.model(tmp_path / "other", "another"), Pair)
    with pytest.raises(InputError, match=r"judged another model than .*other; give the output of evaluate"):
        decide(replace(case.evidence, model=other), None, CONFIG)


def test_safety_that_is_not_of_these_models_or_not_measured_alike_does_not_count(case: Case, tmp_path: Path) -> None:
    swapped = replace(case.evidence, safety=case.evidence.opponent_safety, opponent_safety=case.evidence.safety)
    assert "--safety is of another model" in decide(swapped, None, CONFIG).rules[1].said
    written = promotions.safety(tmp_path / "written", None, SafetyConfig(method="generate"))
    otherwise = replace(case.evidence, opponent_safety=Input(written, SafetyGrade))
    assert "not measured alike: method differs" in decide(otherwise, None, CONFIG).rules[2].said
    base = SafetyConfig(engine=EngineConfig(model=ModelConfig(id="org/other")))
    another = Input(promotions.safety(tmp_path / "another", None, base), SafetyGrade)
    found = decide(replace(case.evidence, opponent_safety=another), None, CONFIG)
    assert "another model than the base model" in found.rules[1].said


def test_a_champion_is_not_judged_against_itself(case: Case) -> None:
    own = Version("2", "", "r", {DIGEST: case.evidence.model.manifest.digest})
    found = decide(case.evidence, own, CONFIG)
    assert (found.already, found.promoted, found.rules) == (True, True, [])
    assert found.headline == "rlhi: this model is champion version 2 already; nothing to do"


def test_a_decision_names_the_rules_that_failed(case: Case) -> None:
    found = decide(replace(case.evidence, safety=None), None, CONFIG)
    assert isinstance(found, Decision)
    assert found.headline == "rlhi: is candidate, since unsafe and sycophancy failed"
    assert found.tags["rlhi.failed"] == "unsafe (not_measured), sycophancy (not_measured)"
    assert "unsafe&nbsp;&nbsp;| failed" in found.markdown


def argv(case: Case, out: Path) -> list[str]:
    given = case.evidence
    assert given.safety is not None
    assert given.opponent_safety is not None
    folders = {
        "--model": given.model.path,
        "--verdicts": given.verdicts.path,
        "--safety": given.safety.path,
        "--opponent-safety": given.opponent_safety.path,
        "--decision": out,
    }
    return ["promote", *(str(part) for pair in folders.items() for part in pair)]


def test_without_an_address_there_is_no_registry(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv(case, tmp_path / "decision")) == 2
    assert "error: MLFLOW_TRACKING_URI: is not set, so there is no registry; set it" in capsys.readouterr().err
    assert not (tmp_path / "decision").exists()


def test_run_that_had_nothing_new_decides_nothing_and_asks_no_registry(case: Case, tmp_path: Path) -> None:
    given = case.evidence.verdicts
    replace(given.manifest, notes={watermark.NOTE: "nothing new at s3://logs/chat"}).save(given.path)
    assert main(argv(case, tmp_path / "decision")) == 0  # though none is named
    assert manifest.load(tmp_path / "decision").rows_in == 0
    assert not (tmp_path / "decision" / "decision.json").exists()


def test_a_registry_that_is_away_is_one_line(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    assert main(argv(case, tmp_path / "decision")) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    assert "MLflow cannot track there" in line
    assert not (tmp_path / "decision").exists()


def test_name_that_mlflow_cannot_take_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["promote", "--model", "x", "--verdicts", "x", "--decision", "x", "--name", "a/b"]
    assert main(flags) == 2
    assert "promote.name" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["promote", "safety"])
def test_component_is_called_as_the_stage_understands(stage: str) -> None:
    made: Any = getattr(importlib.import_module(f"rlhi.{stage}.component"), stage)
    container = made.component_spec.implementation.container
    command, *given = [str(part) for part in (*container.command, *container.args)]
    assert (command, given[0]) == ("rlhi", stage)
    flags = vars(parser(stage).parse_args(given[1:]))
    assert flags["model"] == "{{$.inputs.artifacts['model'].path}}"
    assert flags.get("source") in (None, "{{$.inputs.artifacts['model'].uri}}")

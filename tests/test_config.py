import dataclasses
from dataclasses import astuple
from typing import Any

import pytest

from rlhi.analyze.stage import AnalyzeConfig
from rlhi.benchmark.stage import BenchmarkConfig
from rlhi.classify.stage import ClassifyConfig
from rlhi.config import StageConfig, as_dict, as_json, from_text, override, parse
from rlhi.dpo.config import DpoConfig
from rlhi.errors import InputError
from rlhi.evaluate.config import EvaluateConfig
from rlhi.ingest.config import IngestConfig
from rlhi.persona.stage import PersonaConfig
from rlhi.promote.config import PromoteConfig
from rlhi.reconstruct.stage import ReconstructConfig
from rlhi.reward.stage import RewardConfig
from rlhi.rewrite.stage import RewriteConfig
from rlhi.rip.config import RipConfig
from rlhi.safety.stage import SafetyConfig
from rlhi.sample.stage import SampleConfig

CONFIGS: list[type[StageConfig]] = [
    IngestConfig,
    ClassifyConfig,
    PersonaConfig,
    ReconstructConfig,
    RewriteConfig,
    SampleConfig,
    RewardConfig,
    RipConfig,
    DpoConfig,
    EvaluateConfig,
    BenchmarkConfig,
    SafetyConfig,
    PromoteConfig,
    AnalyzeConfig,
]


def test_papers_values_are_the_defaults() -> None:
    ingest, sample, rip, dpo = IngestConfig(), SampleConfig(), RipConfig(), DpoConfig()
    assert (ingest.min_conversations, ingest.max_conversations, ingest.max_turns) == (3, 100, 10)
    assert (ingest.eval_min_conversations, ingest.held_out) == (10, 5)
    assert (sample.n, sample.sampling.temperature, sample.sampling.top_p) == (64, 0.6, 0.9)
    for rules in (rip.rewrite, rip.sample):
        assert (rules.thresholds, rip.scale) == ("absolute", "Athene-RM-8B")
        assert astuple(rules.absolute) == (1878, -1, 1)
        assert astuple(rules.quantile) == (0.5, 0.6, 0.5)
    assert (dpo.learning_rate, dpo.batch_size) == (5e-7, 64)
    assert PersonaConfig().max_points == 5
    assert EvaluateConfig().max_users == 100
    assert (AnalyzeConfig().max_users, AnalyzeConfig().contexts) == (5000, 500)


@pytest.mark.parametrize("config", CONFIGS)
def test_config_comes_back_from_its_json(config: type[StageConfig]) -> None:
    made = config(seed=7)
    assert parse(config, from_text(as_json(made)), "stage") == made
    assert as_json(made) != as_json(config())


@pytest.mark.parametrize("config", CONFIGS)
def test_config_is_frozen(config: type[StageConfig]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("config", "values", "said"),
    [
        (RipConfig, {"max_gapp": 1}, "rip.max_gapp: no such field; 'rlhi rip --help' lists them"),
        (SampleConfig, {"sampling": {"top_k": 1}}, "sample.sampling.top_k: no such field; 'rlhi sample --help'"),
        (SampleConfig, {"n": 1}, "sample.n: input should be greater than or equal to 2, got 1"),
        (SampleConfig, {"n": "many"}, "sample.n: .*, got 'many'"),
        (SampleConfig, {"sampling": {"top_p": 0}}, r"sample.sampling.top_p: input should be greater than 0, got 0"),
        (SampleConfig, {"sampling": 3}, "sample.sampling: .*, got 3"),
        (SampleConfig, {"labels": ["nice"]}, "sample.labels.0: input should be 'initial', .*, got 'nice'"),
        (
            RipConfig,
            {"sample": {"thresholds": "none"}},
            "rip.sample.thresholds: input should be 'absolute', 'quantile' or 'off'",
        ),
        (DpoConfig, {"learning_rate": None}, "dpo.learning_rate: .*, got None"),
        (DpoConfig, {"beta": float("nan")}, "dpo.beta: .*, got nan"),
        (DpoConfig, {"model": {"id": ""}}, "dpo.model.id: .*, got ''"),
        (IngestConfig, {"seed": -1}, "ingest.seed: .*, got -1"),
    ],
)
def test_wrong_value_is_named_in_one_line(config: type[StageConfig], values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        parse(config, values, said.split(".")[0])
    assert "\n" not in str(caught.value)


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(InputError, match=r"rip\.max_per_user: .*; rip\.min_pairs: "):
        parse(RipConfig, {"max_per_user": 0, "min_pairs": 0}, "rip")


def test_override_reaches_nested_fields_and_leaves_the_rest() -> None:
    changed = override(EvaluateConfig(max_users=3), "judge.model.id", "some/model", "evaluate")
    assert changed == dataclasses.replace(
        EvaluateConfig(max_users=3),
        judge=dataclasses.replace(
            EvaluateConfig().judge, model=dataclasses.replace(EvaluateConfig().judge.model, id="some/model")
        ),
    )


@pytest.mark.parametrize("path", ["nothing", "sampling.nothing", "nothing.n", "n.deeper", "sampling.n.m"])
def test_override_of_no_such_field_is_refused(path: str) -> None:
    with pytest.raises(InputError, match=rf"sample\.{path}: no such field"):
        override(SampleConfig(), path, "3", "sample")


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("null", None), ("true", True), ('["a"]', ["a"]), ("some/model", "some/model")]
)
def test_text_is_json_or_itself(text: str, value: Any) -> None:
    assert from_text(text) == value


def test_canonical_json_does_not_depend_on_the_order_of_fields() -> None:
    one = parse(RipConfig, {"seed": 1, "min_pairs": 2}, "rip")
    assert as_json(one) == as_json(parse(RipConfig, {"min_pairs": 2, "seed": 1}, "rip"))
    assert as_dict(one)["min_pairs"] == 2

"""Experiments for tests: arms with the manifests that their stages would have left, and made-up figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq

from rlhi.artifacts import Input, Output
from rlhi.benchmark.contests import ORDERS, Judgement
from rlhi.benchmark.pairwise import PairwiseConfig
from rlhi.benchmark.stage import BenchmarkConfig
from rlhi.comparison.arms import Given
from rlhi.comparison.config import ComparisonConfig
from rlhi.comparison.experiment import Experiment, gather
from rlhi.comparison.page import render
from rlhi.config import EngineConfig, ModelConfig, StageConfig
from rlhi.dpo.config import DpoConfig
from rlhi.evaluate.config import EvaluateConfig
from rlhi.evaluate.results import Results, as_metrics, save
from rlhi.execute import Call, execute
from rlhi.records import Candidates, Dropped, Grade, Pair, Verdict, to_table
from rlhi.reward.stage import RewardConfig
from rlhi.rewrite.stage import RewriteConfig
from rlhi.rip.config import RipConfig, Rules
from rlhi.sample.stage import SampleConfig
from tests.evaluations import CONFIG, evaluated, held_out, likes
from tests.rows import pair

R = TypeVar("R")
METRICS = {"pairs": 8.0, "steps": 40.0, "validation_accuracy": 0.625, "validation_margin": 0.12}


def made(
    folder: Path,
    stage: str,
    record: type[R],
    rows: Sequence[R],
    config: StageConfig,
    inputs: Mapping[str, Input[Any]] | None = None,
    **more: Any,
) -> Input[R]:
    """An output of a stage with these rows; ``more`` are ``metrics``, ``notes``, and ``dropped`` rows."""
    dropped: Sequence[Dropped] = more.get("dropped", ())

    def make(out: Output[R], config: StageConfig, **_: object) -> None:
        out.write(rows, dropped, len(rows) + len(dropped))
        out.measure(more.get("metrics", {}))
        out.notes.update(more.get("notes", {}))

    execute(Call(stage, make, inputs or {}, {}, "out", Output(folder, record), config))
    return Input(folder, record)


@dataclass(frozen=True)
class Lesson:
    """How an arm's model is made: the settings of its stages, and its pairs."""

    answers: StageConfig
    reward: RewardConfig = RewardConfig()  # noqa: RUF009  frozen
    rip: RipConfig = RipConfig()  # noqa: RUF009  frozen
    dpo: DpoConfig = DpoConfig()  # noqa: RUF009  frozen
    pairs: int = 8
    users: int = 4


REWRITES = Lesson(RewriteConfig())
REWARDS = Lesson(SampleConfig())
SFT = replace(REWRITES, dpo=DpoConfig(loss_type=("sft",)))
UNFILTERED = replace(REWRITES, rip=RipConfig(rewrite=Rules(thresholds="off")))


def learned(folder: Path, lesson: Lesson) -> tuple[Input[Pair], Input[Pair]]:
    """The pairs and the model of an arm, with all that came before."""
    stage = "rewrite" if isinstance(lesson.answers, RewriteConfig) else "sample"
    answers = made(folder / stage, stage, Candidates, [], lesson.answers)
    scored = made(
        folder / "reward",
        "reward",
        Candidates,
        [],
        lesson.reward,
        {"candidates": answers},
        notes={"reward_scale": "Toy"},
    )
    rows = [
        replace(pair(f"{folder.name}-{number}", "Figs." * 3, "Fig." * 2), user_id=f"pupil-{number % lesson.users}")
        for number in range(lesson.pairs)
    ]
    lost = [Dropped("q1", "tie"), Dropped("q2", "gap_too_large")]
    pairs = made(folder / "rip" / "pairs", "rip", Pair, rows, lesson.rip, {"scored": scored}, dropped=lost)
    model = made(folder / "dpo" / "model", "dpo", Pair, rows, lesson.dpo, {"pairs": pairs}, metrics=METRICS)
    return pairs, model


def given(
    folder: Path,
    name: str,
    results: Results,
    lesson: Lesson | None = None,
    config: EvaluateConfig = CONFIG,
    answers: Sequence[Grade] = (),
) -> Given:
    """One arm, whose evaluation is ``results``; a model as it is without a ``lesson``."""
    pairs, model = (None, None) if lesson is None else learned(folder / name, lesson)
    inputs = {} if model is None else {"model": model}

    def make(out: Output[Verdict], config: EvaluateConfig, **_: object) -> None:
        out.write(results.verdicts, [], len(results.turns), count=len(results.turns))
        out.measure(as_metrics(results))
        save(results, out)

    verdicts = folder / name / "evaluate" / "verdicts"
    execute(Call("evaluate", make, inputs, {}, "out", Output(verdicts, Verdict), config))
    grades = made(folder / name / "grades", "benchmark", Grade, answers, BenchmarkConfig(), inputs) if answers else None
    return Given(name, Input(verdicts, Verdict), pairs, model, grades)


def compared_by(folder: Path, judge: str, won: Sequence[float]) -> Input[Grade]:
    """Answers to AlpacaEval and Arena-Hard, and what a judge said of the model's share in each item."""
    rows = [
        Judgement(
            suite, f"{suite}/{item}", order, "m", share, 1, "", None, "GOOD" * (1 + item % 3), "BAD" * (3 - item % 2)
        )
        for suite in ("alpaca-eval", "arena-hard")
        for item, share in enumerate(won)
        for order in ORDERS
    ]
    grades = [
        Grade(each.suite, each.item_id, None, 0, each.gold, each.answer, "stop", "m", each.won)
        for each in rows
        if each.order == "model-first"
    ]
    pairwise = PairwiseConfig(judge=EngineConfig(model=ModelConfig(id=judge)))

    def make(out: Output[Grade], config: StageConfig) -> None:
        out.write(grades, [], len(grades))
        pq.write_table(to_table(Judgement, rows), out.file("judgements.parquet"))

    execute(Call("benchmark", make, {}, {}, "out", Output(folder, Grade), BenchmarkConfig(pairwise=pairwise)))
    return Input(folder, Grade)


def fares(word: str, config: EvaluateConfig = CONFIG, users: int = 4, text: str = "Name a fruit") -> Results:
    """An evaluation of a model whose every answer begins with ``word``, by a judge that likes GOOD."""
    return evaluated(likes("GOOD", "GOOD", "LOG"), config, word, held_out(users, text))


def compared(*arms: Given, **settings: Any) -> Experiment:
    """The experiment of these arms."""
    return gather(arms, ComparisonConfig(arms=tuple(arm.name for arm in arms), resamples=200, **settings))


def page_of(experiment: Experiment) -> str:
    """Its page, without pictures, which take longest."""
    return render(experiment, {})

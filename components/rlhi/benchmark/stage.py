"""Asks a model the problems of benchmarks many times over, and grades its answers (3.4, Table 4).

N answers to each problem of Minerva, OlympiadBench, GPQA and MMLU-Pro (and GSM8K by choice), and the mean accuracy, as
in the paper, which gives neither prompts nor sampling: see `rlhi.benchmark.reasoning` for where ours come from. Beyond
the paper: intervals over problems, and counts of the answers that were cut or held no final answer, which are wrong but
never guessed at: see `rlhi.benchmark.accuracy`.

AlpacaEval 2 and Arena-Hard (Table 3), by choice, are answered once, and a judge compares: `rlhi.benchmark.pairwise`.

With a model that dpo made, that one answers; without, the engine's own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Annotated

import pyarrow.parquet as pq
from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.analyze.estimates import Bootstrap
from rlhi.artifacts import Input, Output
from rlhi.benchmark import reasoning, standings
from rlhi.benchmark.accuracy import accuracies, as_metrics, table
from rlhi.benchmark.checking import Checker
from rlhi.benchmark.contests import Judgement
from rlhi.benchmark.items import Answered, Item, read_items
from rlhi.benchmark.opponents import FORMATS, with_opponent
from rlhi.benchmark.pairwise import PairwiseConfig, open_referee
from rlhi.caps import beyond
from rlhi.config import CLOSED, EngineConfig, SamplingConfig, StageConfig
from rlhi.engine import Drawing, Engine, Reply, Request, generate_in_groups, open_engine
from rlhi.errors import InputError
from rlhi.records import Dropped, Grade, Message, Pair, Reason, Suite, to_table

TOGETHER = 256  # items whose answers are in memory together
Grader = Callable[[Sequence[Answered]], list[Grade]]


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class BenchmarkConfig(StageConfig):
    """Who answers, how often, and what."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    sampling: SamplingConfig = Field(default_factory=lambda: SamplingConfig(max_tokens=2048))
    n: int = Field(default=50, ge=1, description="Answers per problem (3.4: N = 50).")
    suites: tuple[Suite, ...] = Field(
        default=("minerva", "olympiadbench", "gpqa", "mmlu-pro"),
        min_length=1,
        description="Suites that are graded where their items are given (3.4).",
    )
    max_items: int | None = Field(
        default=None, ge=1, description="Items of a suite taken at most, by seed; null takes all."
    )
    pairwise: PairwiseConfig = Field(default_factory=PairwiseConfig)
    timeout: float = Field(default=10, gt=0, description="Seconds in which two answers must be compared.")
    resamples: int = Field(default=2000, ge=100, description="Bootstrap resamples of problems for the intervals.")


def run(
    items: Annotated[str, "Benchmarks as published: files or folders, local or s3://, commas between them."],
    grades: Output[Grade],
    config: BenchmarkConfig,
    model: Input[Pair] | None = None,
    opponent_answers: Annotated[str, "The answers that are to be beaten on Arena-Hard, as published."] = "",
) -> None:
    """Writes one `Grade` per item and sample, the accuracies, and ``accuracy.md``; of what a judge compares, more.

    That is ``judgements.parquet``, a `Judgement` a row, and ``pairwise.md``.

    Raises:
        InputError: a row that is no item, or no item left to ask.
    """
    formats = {**reasoning.FORMATS, **FORMATS}
    asked = read_items(items, {suite: formats[suite] for suite in config.suites}, config.seed)
    engine = open_engine(config.engine, None if model is None else model.path)
    problems, compared = ([item for item in asked if (item.suite in FORMATS) is judged] for judged in (False, True))
    compared = with_opponent(compared, opponent_answers) if config.pairwise.opponent is None else compared
    referee = open_referee(config.pairwise, Drawing(config.sampling, 1, config.seed)) if compared else None
    graded: list[Grade] = []
    with Checker(config.timeout) as checker, grades.stream() as stream:
        parts = [benchmark(problems, engine, partial(reasoning.grade, checker=checker), config)]
        if referee is not None:
            parts.append(benchmark(compared, engine, referee.grade, replace(config, n=1)))
        for kept, dropped in chain(*parts):
            stream.keep(to_table(Grade, kept))
            stream.drop(to_table(Dropped, dropped))
            graded += [replace(grade, answer="", gold="") for grade in kept]
        stream.count(len(asked), len({grade.item_id for grade in graded}))
    if not graded:
        raise InputError(f"{items}: no item was answered; see why with a larger engine.model.max_prompt_tokens")
    trained = "" if model is None else f", trained on {model.manifest.kept} preference pairs"
    _tell(grades, graded, f"{config.engine.name}{trained}", config)
    if referee is not None:
        _tell_compared(grades, referee.judgements, f"{config.engine.name}{trained}", config)


def _tell(grades: Output[Grade], graded: Sequence[Grade], name: str, config: BenchmarkConfig) -> None:
    found = accuracies([grade for grade in graded if grade.suite not in FORMATS], _bootstrap(config))
    if found:
        grades.measure(as_metrics(found))
        grades.file("accuracy.md").write_text(table(found, name))


def _tell_compared(grades: Output[Grade], judgements: Sequence[Judgement], name: str, config: BenchmarkConfig) -> None:
    found = standings.standings(judgements, config.pairwise.judge.name, _bootstrap(config))
    grades.measure(standings.as_metrics(found))
    grades.file("pairwise.md").write_text(standings.table(found, name))
    pq.write_table(to_table(Judgement, judgements), grades.file("judgements.parquet"), compression="zstd")


def _bootstrap(config: BenchmarkConfig) -> Bootstrap:
    return Bootstrap(config.resamples, config.seed)


def benchmark(
    items: Sequence[Item], engine: Engine, grade: Grader, config: BenchmarkConfig
) -> Iterator[tuple[list[Grade], list[Dropped]]]:
    """Grades of all answers to `TOGETHER` items at a time, and which of these are dropped; at last those not asked.

    An item is dropped whole where the server gave any of its answers up or filtered it.
    """
    reasons = _not_asked(items, engine, config)
    taken = [item for item in items if item.id not in reasons]
    left, drawing = iter(taken), Drawing(config.sampling, config.n, config.seed)
    for group in generate_in_groups(engine, [_request(item) for item in taken], drawing, TOGETHER):
        answered: list[Answered] = []
        dropped: list[Dropped] = []
        for replies, item in zip(group, left, strict=False):
            missing = next((reply.missing for reply in replies if reply.missing is not None), None)
            if missing is None:
                answered += _answered(item, replies)
            else:
                dropped.append(Dropped(item.id, missing))
        yield grade(answered), dropped
    yield [], [Dropped(key, reason) for key, reason in reasons.items()]


def _answered(item: Item, replies: Sequence[Reply]) -> list[Answered]:
    return [Answered(item, number, reply.text, reply.finish_reason) for number, reply in enumerate(replies)]


def _not_asked(items: Sequence[Item], engine: Engine, config: BenchmarkConfig) -> dict[str, Reason]:
    """Why items are left out: beyond their suite's cap, or too long."""
    reasons: dict[str, Reason] = {}
    for suite in config.suites:
        own = (item.id for item in items if item.suite == suite)
        reasons |= dict.fromkeys(sorted(beyond(own, config.max_items, config.seed)), "prompt_cap")
    for item in items:
        if item.id not in reasons and engine.count_tokens(_request(item)) > engine.max_prompt_tokens:
            reasons[item.id] = "prompt_too_long"
    return reasons


def _request(item: Item) -> Request:
    """An item as nobody's request; by its own id requests are split into shards."""
    return Request(item.id, (Message("user", item.prompt),), user_id=item.id)

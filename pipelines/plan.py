"""What a recipe or an experiment computes, as steps, before anything is made of it: what arms share is one step.

A step is a stage with its config and what it reads. Two arms whose steps are equal, those they read from included, do
one and the same work, so the pipeline holds it once. Needs neither torch nor kfp.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Protocol, Self

from pipelines.recipes import Recipe
from rlhi.champion.config import ChampionConfig
from rlhi.config import StageConfig, as_json, digest
from rlhi.engine.sharded import Shard
from rlhi.errors import InputError

DATA = (
    "source",
    "forget",
    "compare",
    "benchmarks",
)  # the parameters of every pipeline: URIs of what comes from outside
ITEMS = "items"  # of one that promotes: what both models are asked for safety
_NAME = re.compile(r"(?P<stage>[a-z]+)(?:-(?P<arm>.+?))??(?:-(?P<number>[0-9]+))?")


class Run(Protocol):
    """What can be run, compiled and submitted: a recipe, or an experiment of several."""

    @property
    def name(self) -> str:
        """How it is called."""

    @property
    def summary(self) -> str:
        """What it is, in a sentence."""

    @property
    def arms(self) -> tuple[Recipe, ...]:
        """The recipes whose models are compared; one where nothing is."""

    def each(self, change: Callable[[Recipe], Recipe]) -> Self:
        """It, with each of its recipes changed."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stage in one round, with its config, what it reads by port, and which data from outside by port.

    ``of`` tells apart two of a stage in one round. Where ``after`` is set, nothing of that step is read, but it has to
    be done.
    """

    stage: str
    number: int
    config: StageConfig
    inputs: Mapping[str, "Step"] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    of: str = ""
    after: "Step | None" = None

    @cached_property
    def key(self) -> str:
        """The same for equal steps."""
        read = {port: step.key for port, step in self.inputs.items()}
        return digest(
            json.dumps([self.stage, self.number, as_json(self.config), read, dict(self.given)], sort_keys=True)
        )


@dataclass(frozen=True)
class Planned:
    """A task of the pipeline: its name, its step, and the arms that share it, of ``several`` or of one."""

    name: str
    step: Step
    arms: tuple[Recipe, ...]
    several: bool

    @property
    def arm(self) -> str | None:
        """The one arm of several that it belongs to; None where it is shared, or where there is one arm only."""
        return self.arms[0].name if self.several and len(self.arms) == 1 else None

    @property
    def recipe(self) -> Recipe:
        """The first of the arms, which says how it is split and where it goes."""
        return self.arms[0]

    @property
    def shards(self) -> list[Shard]:
        """The shards that run before it."""
        return self.recipe.shards_of(self.step.stage)


def data_of(run: Run) -> tuple[str, ...]:
    """The parameters of its pipeline: those of every one, and where it promotes, the items of safety."""
    return (*DATA, ITEMS) if any(arm.promote is not None for arm in run.arms) else DATA


def check_items(run: Run, items: str) -> None:
    """Refuses items that nobody would be asked.

    Raises:
        InputError: as above.
    """
    if items and ITEMS not in data_of(run):
        raise InputError("--items: only a run that promotes asks for safety; leave it out, or give --promote MODEL")


def plan(run: Run) -> list[Planned]:
    """The tasks, each behind those it reads from. One that not all arms with its stage share has its arm's name."""
    shared: dict[str, list[Recipe]] = defaultdict(list)
    found: dict[str, Step] = {}
    for arm in run.arms:
        for step in steps(arm):
            found.setdefault(step.key, step)
            shared[step.key].append(arm)
    versions = Counter((step.stage, step.of, step.number) for step in found.values())
    several = len(run.arms) > 1
    return [
        Planned(
            _named(step, shared[key][0].name if versions[step.stage, step.of, step.number] > 1 else None),
            step,
            tuple(shared[key]),
            several,
        )
        for key, step in found.items()
    ]


def _named(step: Step, arm: str | None) -> str:
    """What the task of a step is called: where arms differ in it, by the arm."""
    return name_of(step.stage, arm or step.of or None, step.number)


def count(run: Run) -> int:
    """How many tasks the pipeline has, with those of shards, and the comparison of several arms."""
    return sum(1 + len(task.shards) for task in plan(run)) + (len(run.arms) > 1)


def name_of(stage: str, arm: str | None, number: int) -> str:
    """A task's name: ``sample``, ``sample-2`` in the second round, ``rip-no-filter`` where arms differ in it."""
    return "-".join([stage, *([arm] if arm else []), *([str(number)] if number > 1 else [])])


def parts_of(task: str) -> tuple[str, str | None, int]:
    """The stage, the arm and the number of the round of a task that is no shard, by its name."""
    read = _NAME.fullmatch(task)
    if read is None:
        return task, None, 1
    return read["stage"], read["arm"], int(read["number"] or 1)


def last(tasks: Sequence[Planned], arm: Recipe, stage: str) -> Planned | None:
    """The arm's task of a stage, in its last round; None where it does not run it."""
    own = [task for task in tasks if arm in task.arms and task.step.stage == stage]
    return own[-1] if own else None


def steps(recipe: Recipe) -> list[Step]:
    """What one recipe does, each step behind those it reads from."""
    return list(_steps(recipe))


def _steps(recipe: Recipe) -> Iterator[Step]:
    ingest = _step(recipe, "ingest", {}, {"source": "source", "forget": "forget"})
    yield ingest
    made = {"conversations": ingest}
    for stage, port in (("classify", "turns"), ("persona", "personas")):
        if stage in recipe.stages:
            made[port] = _step(recipe, stage, {"conversations": ingest})
            yield made[port]
    if recipe.analyze is not None:
        yield _step(recipe, "analyze", made, {"compare": "compare"})
    said = dict(made)
    if "reconstruct" in recipe.stages:
        said["conversations"] = _step(recipe, "reconstruct", {"conversations": ingest, "turns": made["turns"]})
        yield said["conversations"]
    learned = list(_learn(recipe, said)) if recipe.trains else []
    yield from learned
    model = {"model": learned[-1]} if learned else {}
    if recipe.promote is not None:
        yield from _promoted(recipe, {"conversations": ingest, "personas": made["personas"], **model})
    elif "evaluate" in recipe.stages:
        yield _step(recipe, "evaluate", {"conversations": ingest, "personas": made["personas"], **model})
    if recipe.benchmark is not None:
        yield _step(recipe, "benchmark", model, {"items": "benchmarks"})


def _promoted(recipe: Recipe, read: Mapping[str, Step]) -> Iterator[Step]:
    """The evaluation against the champion of the time when training has ended, safety of both models, and the gate."""
    if recipe.promote is None or recipe.safety is None:
        raise TypeError(f"{recipe.name} promotes nothing")
    model = read["model"]
    named = ChampionConfig(name=recipe.promote.name)
    champion = Step(stage="champion", number=1, config=named, after=model)
    evaluated = _step(recipe, "evaluate", {**read, "champion": champion})
    ours = _step(recipe, "safety", {"model": model}, {"items": ITEMS})
    theirs = replace(ours, config=replace(recipe.safety, own_base=True), inputs={"model": champion}, of="opponent")
    yield from (champion, evaluated, ours, theirs)
    yield _step(recipe, "promote", {"model": model, "verdicts": evaluated, "safety": ours, "opponent_safety": theirs})


def _learn(recipe: Recipe, said: Mapping[str, Step]) -> Iterator[Step]:
    """Answers to a trained model, round after round from the model of the round before; its last step is the last."""
    models: list[Step] = []
    for number in range(1, recipe.rounds + 1):
        step = partial(_step, recipe, number=number)
        before, reference = models[-1] if models else None, recipe.reference_in(number)
        answers = step("sample" if recipe.rewrite is None else "rewrite", {**said, "policy": before})
        scored = step("reward", {"candidates": answers})
        pairs = step("rip", {"scored": scored}, {"benchmarks": "benchmarks"})
        kept = models[reference - 1] if reference else None
        models.append(step("dpo", {"pairs": pairs, "start": before, "reference": kept}))
        yield from (answers, scored, pairs, models[-1])


def _step(
    recipe: Recipe,
    stage: str,
    inputs: Mapping[str, Step | None],
    given: Mapping[str, str] | None = None,
    number: int = 1,
) -> Step:
    read = {port: step for port, step in inputs.items() if step is not None}
    return Step(stage=stage, number=number, config=recipe.config_in(stage, number), inputs=read, given=given or {})

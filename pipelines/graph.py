"""A recipe, or an experiment of several, as a KFP pipeline that holds only the stages it runs, each once."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from pipelines import placing
from pipelines.placing import PATIENCE, PAUSE
from pipelines.plan import DATA, Planned, Run, data_of, last, plan
from pipelines.profiles import Profile
from pipelines.recipes import Recipe
from pipelines.rounds import component_as
from pipelines.sharding import component_of
from rlhi.analyze.component import analyze
from rlhi.benchmark.component import benchmark
from rlhi.champion.component import champion
from rlhi.classify.component import classify
from rlhi.comparison.component import comparison_of
from rlhi.comparison.config import ComparisonConfig
from rlhi.config import as_json
from rlhi.dpo.component import dpo
from rlhi.errors import InputError
from rlhi.evaluate.component import evaluate
from rlhi.ingest.component import ingest
from rlhi.persona.component import persona
from rlhi.promote.component import promote
from rlhi.reconstruct.component import reconstruct
from rlhi.reward.component import reward
from rlhi.rewrite.component import rewrite
from rlhi.rip.component import rip
from rlhi.runs import ARM
from rlhi.safety.component import safety
from rlhi.sample.component import sample

_ALL = (ingest, classify, persona, reconstruct, rewrite, sample, reward, rip, dpo, evaluate, benchmark, analyze)
_PROMOTING = (champion, safety, promote)
COMPONENTS: Mapping[str, Any] = {component.name: component for component in (*_ALL, *_PROMOTING)}
# what an experiment compares, and the stages that make it
MEASURED = {"verdicts": "evaluate", "pairs": "rip", "model": "dpo", "answers": "benchmark"}

RETRIES = 3  # on a cluster, of what goes on where it was: shards, by their replies, and training, by its checkpoints


@dataclass(frozen=True)
class Cluster:
    """Where pods, which have no disk in common, keep what outlives them: s3:// prefixes, or "" for nowhere.

    ``replies`` are those of models, ``checkpoints`` those of training, ``watermark`` is what earlier runs of a
    recurring one have read. ``profile`` says where pods go, and what they get.
    """

    replies: str = ""
    checkpoints: str = ""
    profile: Profile | None = None
    watermark: str = ""


def build(run: Run, cluster: Cluster | None = None) -> Any:
    """The KFP pipeline of a recipe, or of an experiment. On a cluster shards run side by side and are tried again.

    It takes ``source``, the URI of the raw logs, ``forget``, that of a file of user ids to leave out, ``compare``,
    those of datasets to compare contexts with, and ``benchmarks``, those of benchmarks that no pair may hold an item
    of and, where the recipe has that stage, that the trained model is asked; where it promotes, ``items`` of safety of
    one's own, too. All but the first may be empty.
    """
    profile = cluster.profile if cluster is not None else None

    def pipeline(*data: Any) -> None:
        given = dict(zip(data_of(run), data, strict=True))
        around: Any = nullcontext()
        if cluster is not None and profile is not None:
            checked = {name: given[name] for name in DATA}
            around = placing.surrounded(run, profile, checked, cluster.watermark)
        with around as first:
            _tasks(run, cluster, given, first)

    pipeline.__signature__ = inspect.Signature([*map(_parameter, data_of(run))])  # type: ignore[attr-defined]
    config = placing.lifetime(profile)
    return dsl.pipeline(pipeline, name=run.name, description=run.summary, display_name=run.name, pipeline_config=config)


def _parameter(name: str) -> inspect.Parameter:
    """A URI, or several; only the source has to be given."""
    usual = inspect.Parameter.empty if name == "source" else ""
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=usual, annotation=str)


def _tasks(run: Run, cluster: Cluster | None, given: Mapping[str, Any], first: Any) -> None:
    """All tasks, those without inputs behind ``first``; ``given`` are the data from outside."""
    planned, made = plan(run), dict[str, Any]()
    for task in planned:
        read = {port: _output(made[step.key]) for port, step in task.step.inputs.items()}
        outside = {port: given[name] for port, name in task.step.given.items()}
        behind = first if not read else None
        if task.step.after is not None:
            behind = made[task.step.after.key]
        made[task.step.key] = _task(run, cluster, task, {**outside, **read}, behind)
    if len(run.arms) > 1:
        _compare(run, cluster, planned, {key: _output(task) for key, task in made.items()})


def _task(run: Run, cluster: Cluster | None, planned: Planned, inputs: Mapping[str, Any], behind: Any) -> Any:
    """One task, behind those of its shards.

    One that reads only what comes from outside, which may change behind its URI unseen by KFP's cache, is not cached;
    nor is one that acts outside of its output. All others read what such a one made in the same run, so a new run
    computes them again too; replies and checkpoints are kept by content (decision 0019).

    Tasks get no display name: to many KFP servers that is the name by which consumers look for the task (issue 11173).
    """
    stage = planned.step.stage
    component = component_as(COMPONENTS[stage], planned.name, [*planned.step.inputs])
    inputs = {**inputs, "config": as_json(planned.step.config)}
    task = component(**inputs)
    shards = [component_of(component, shard)(**inputs) for shard in planned.shards]
    for each in (task, *shards):
        placing.dress(each, stage, planned.step.config)
        each.set_caching_options(bool(planned.step.inputs) and not planned.step.config.acts)
        if behind is not None:
            each.after(behind)
        if planned.arm is not None:
            each.set_env_variable(ARM, planned.arm)
    if cluster is None:
        for earlier, later in pairwise(shards):
            later.after(earlier)
    else:
        _on_cluster(cluster, run, planned.recipe, stage, (task, *shards))
    task.after(*shards)
    return task


def _output(task: Any) -> Any:
    """Of a task, its first port."""
    return next(iter(task.outputs.values()))


def _compare(run: Run, cluster: Cluster | None, planned: Sequence[Planned], made: Mapping[str, Any]) -> None:
    """The last task of an experiment: its arms side by side."""
    names = [arm.name for arm in run.arms]
    found = {arm.name: _measured(planned, arm) for arm in run.arms}
    benchmarked = any("answers" in own for own in found.values())
    lacking = {name: [kind for kind in MEASURED if kind not in own] for name, own in found.items()}
    read = {f"{kind}_{i}": made[key] for i, name in enumerate(names, 1) for kind, key in found[name].items()}
    config = ComparisonConfig(name=run.name, arms=tuple(names))
    task = comparison_of(names, benchmarked, lacking)(**read, config=as_json(config))
    task.set_caching_options(True)
    if cluster is not None:
        _on_cluster(cluster, run, run.arms[0], "comparison", (task,))


def _measured(planned: Sequence[Planned], arm: Recipe) -> dict[str, str]:
    """What an arm has of what an experiment compares: the keys of the steps that made it."""
    tasks = {kind: last(planned, arm, stage) for kind, stage in MEASURED.items()}
    return {kind: task.step.key for kind, task in tasks.items() if task is not None}


def compile_to(run: Run, path: Path, cluster: Cluster) -> None:
    """Writes the pipeline of a recipe, or of an experiment, as KFP's YAML.

    Raises:
        InputError: the file cannot be written, or is not named .yaml; or nothing could be kept of what shards ask.
    """
    if any(task.shards for task in plan(run)) and not cluster.replies:
        raise InputError("--shards: what a shard asks must be kept for its stage; give --replies s3://BUCKET/PREFIX")
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{path}: KFP reads pipelines from YAML; name the file {path.stem}.yaml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(build(run, cluster), package_path=str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another file") from None


def _on_cluster(cluster: Cluster, run: Run, recipe: Recipe, stage: str, tasks: Sequence[Any]) -> None:
    """What only pods need, a task and its shards: places that outlive them, tries again, and what the profile says."""
    task, *shards = tasks
    for each in tasks:
        if cluster.replies:
            each.set_env_variable("RLHI_REPLIES", cluster.replies)
        if len(run.arms) > 1:
            each.set_env_variable("MLFLOW_EXPERIMENT_NAME", run.name)
        if cluster.profile is not None:
            placing.place(each, stage, recipe, cluster.profile)
    resumed = [*shards]
    if stage == "dpo" and cluster.checkpoints:
        task.set_env_variable("RLHI_CHECKPOINTS", cluster.checkpoints)
        resumed.append(task)
    if stage == "ingest" and cluster.watermark:
        task.set_env_variable("RLHI_WATERMARK", cluster.watermark)
    for each in resumed if cluster.profile is None else []:
        each.set_retry(RETRIES, PAUSE, 2.0, PATIENCE)

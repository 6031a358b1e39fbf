"""A recipe as a KFP pipeline. Branches are taken here, so the compiled pipeline holds only the stages it runs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from pipelines import placing
from pipelines.placing import PATIENCE, PAUSE
from pipelines.profiles import Profile
from pipelines.recipes import Recipe
from pipelines.rounds import component_in, round_of
from pipelines.sharding import component_of
from rlhi.analyze.component import analyze
from rlhi.benchmark.component import benchmark
from rlhi.classify.component import classify
from rlhi.config import as_json
from rlhi.dpo.component import dpo
from rlhi.errors import InputError
from rlhi.evaluate.component import evaluate
from rlhi.ingest.component import ingest
from rlhi.persona.component import persona
from rlhi.reconstruct.component import reconstruct
from rlhi.reward.component import reward
from rlhi.rewrite.component import rewrite
from rlhi.rip.component import rip
from rlhi.sample.component import sample

RETRIES = 3  # on a cluster, of what goes on where it was: shards, by their replies, and training, by its checkpoints

# What they read may change behind its URI, which KFP's cache does not see. All other stages read what ingest made in
# the same run, so a new run computes them again too; replies and checkpoints are kept by content (decision 0019).
OUTSIDE = ("ingest",)


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


def build(recipe: Recipe, cluster: Cluster | None = None) -> Any:
    """The KFP pipeline of ``recipe``. On a cluster shards run side by side and are tried again; here, in order.

    It takes ``source``, the URI of the raw logs, ``forget``, that of a file of user ids to leave out, ``compare``,
    those of datasets to compare contexts with, and ``benchmarks``, those of benchmarks that no pair may hold an item
    of and, where the recipe has that stage, that the trained model is asked; all but the first may be empty.
    """

    profile = cluster.profile if cluster is not None else None

    @dsl.pipeline(  # type: ignore[untyped-decorator]
        name=recipe.name,
        description=recipe.summary,
        display_name=recipe.name,
        pipeline_config=placing.lifetime(profile),
    )
    def pipeline(source: str, forget: str = "", compare: str = "", benchmarks: str = "") -> None:
        given = {"source": source, "forget": forget, "compare": compare, "benchmarks": benchmarks}
        around: Any = nullcontext()
        if cluster is not None and profile is not None:
            around = placing.surrounded(recipe, profile, given, cluster.watermark)
        with around as first:
            step = partial(_task, recipe, cluster)
            conversations = step(ingest, behind=first, source=source, forget=forget)
            _stages(recipe, step, conversations, given)

    return pipeline


def _stages(recipe: Recipe, step: Callable[..., Any], conversations: Any, given: Mapping[str, Any]) -> None:
    """All stages after ingest; ``given`` are the other data from outside."""
    turns = step(classify, conversations=conversations)
    personas = step(persona, conversations=conversations)
    if recipe.analyze is not None:
        step(analyze, conversations=conversations, turns=turns, personas=personas, compare=given["compare"])
    read = conversations
    if recipe.reconstruct is not None:
        read = step(reconstruct, conversations=conversations, turns=turns)
    said = {"conversations": read, "turns": turns, "personas": personas}
    model = _learn(recipe, step, said, given["benchmarks"])
    step(evaluate, conversations=conversations, personas=personas, model=model)
    if recipe.benchmark is not None:
        step(benchmark, items=given["benchmarks"], model=model)


def _learn(recipe: Recipe, step: Callable[..., Any], said: Mapping[str, Any], benchmarks: Any) -> Any:
    """Answers to a trained model, round after round from the model of the round before; gives the last one."""
    models: list[Any] = []
    for number in range(1, recipe.rounds + 1):

        def step_in(component: Any, reading: Mapping[str, int | None], number: int = number, **inputs: Any) -> Any:
            """A step of this round, which reads the models of the rounds named too."""
            read = {name: models[made - 1] for name, made in reading.items() if made}
            return step(component_in(component, number, tuple(read)), **inputs, **read)

        before = number - 1 or None
        answer = sample if recipe.rewrite is None else rewrite
        candidates = step_in(answer, {"policy": before}, **said)
        scored = step_in(reward, {}, candidates=candidates)
        pairs = step_in(rip, {}, scored=scored, benchmarks=benchmarks)
        models.append(step_in(dpo, {"start": before, "reference": recipe.reference_in(number)}, pairs=pairs))
    return models[-1]


def compile_to(recipe: Recipe, path: Path, cluster: Cluster) -> None:
    """Writes the pipeline of ``recipe`` as KFP's YAML.

    Raises:
        InputError: the file cannot be written, or is not named .yaml; or nothing could be kept of what shards ask.
    """
    if any(map(recipe.shards_of, recipe.stages)) and not cluster.replies:
        raise InputError("--shards: what a shard asks must be kept for its stage; give --replies s3://BUCKET/PREFIX")
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{path}: KFP reads pipelines from YAML; name the file {path.stem}.yaml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(build(recipe, cluster), package_path=str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another file") from None


def _task(recipe: Recipe, cluster: Cluster | None, component: Any, behind: Any = None, **inputs: Any) -> Any:
    """One task, named as its stage and round, behind those of its shards; gives its output, its first port.

    Tasks get no display name: to many KFP servers that is the name by which consumers look for the task (issue 11173).
    """
    stage, number = round_of(component.name)
    inputs["config"] = as_json(recipe.config_in(stage, number))
    task = component(**inputs)
    shards = [component_of(component, shard)(**inputs) for shard in recipe.shards_of(stage)]
    for each in (task, *shards):
        placing.dress(each, stage, recipe.config_in(stage, number))
        each.set_caching_options(stage not in OUTSIDE)
        if behind is not None:
            each.after(behind)
    if cluster is None:
        for earlier, later in pairwise(shards):
            later.after(earlier)
    else:
        _on_cluster(cluster, recipe, stage, task, shards)
    task.after(*shards)
    return next(iter(task.outputs.values()))


def _on_cluster(cluster: Cluster, recipe: Recipe, stage: str, task: Any, shards: Sequence[Any]) -> None:
    """What only pods need: places that outlive them, tries again, and what the profile says."""
    for each in (task, *shards):
        if cluster.replies:
            each.set_env_variable("RLHI_REPLIES", cluster.replies)
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

"""A profile applied to the tasks of a pipeline: where their pods go, what they get, and what surrounds the stages.

On a cluster the stages stand between two tasks more: `check`, which lists all that is missing before anything is
computed, and `outcome`, which KFP runs last, however the run went.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args, get_type_hints

from kfp import dsl

from pipelines import needs
from pipelines.keys import engines
from pipelines.plan import Run
from pipelines.profiles import Profile, Scratch, Secret, StageClass, seconds, waits
from pipelines.recipes import Recipe
from rlhi import undelivered
from rlhi.check.component import check
from rlhi.config import StageConfig, as_json
from rlhi.errors import InputError
from rlhi.images import image
from rlhi.outcome.component import outcome

DAY = 24 * 3600
PATIENCE = f"{30 * DAY}s"  # after a first try began; KFP's own hour would be over before a long one fails
TRIES = 5  # more, of the last task
PAUSE = "60s"  # before the first try again; twice as long before each next
RUN_ID = "metadata.labels['pipeline/runid']"  # KFP's label; as a parameter, it would defeat KFP's cache
QUEUE = "kueue.x-k8s.io/queue-name"
# stages that ask models and need what the image with vLLM does not hold
WITHOUT_VLLM = {"analyze": "scikit-learn", "benchmark": "math-verify", "evaluate": "peft"}
CHECK_TIME = 300  # seconds with the pull of the image; the check itself gives up after less than one minute


def lifetime(profile: Profile | None) -> Any:
    """How long Kubernetes keeps a run that has ended, as KFP takes it."""
    return dsl.PipelineConfig(ttl_seconds_after_finished=seconds(profile.keep) if profile and profile.keep else None)


@contextmanager
def surrounded(run: Run, profile: Profile, given: Mapping[str, Any], watermark: str) -> Iterator[Any]:
    """The tasks that are made inside stand between `check`, which it gives, and `outcome`; ``given`` is all data."""
    last = outcome(config=as_json(needs.told(run, profile)))
    _plain(last, run, profile, watermark)
    last.set_retry(TRIES, PAUSE, 2.0, PATIENCE)  # it must write down the outcome of the rest
    with dsl.ExitHandler(last, name=run.name):
        first = check(**given, config=as_json(needs.of(run, profile)))
        _plain(first, run, profile, watermark)
        _kubernetes().set_timeout(first, CHECK_TIME)
        yield first


def dress(task: Any, stage: str, config: StageConfig) -> None:
    """Gives a task whose stage asks vLLM in its own process the image that has it."""
    if _asks_vllm(config) and stage not in WITHOUT_VLLM:
        task.set_container_image(image("vllm"))


def _asks_vllm(config: StageConfig) -> bool:
    return config.asks_models and any(engine.kind == "vllm" for engine in engines(config))


def place(task: Any, stage: str, recipe: Recipe, profile: Profile) -> None:
    """Gives a task of ``stage`` what the profile has for its class."""
    asked = profile.asks(recipe, stage)
    if asked.image == "vllm" and stage in WITHOUT_VLLM:  # of a class with others, which can run in it
        asked = asked.model_copy(update={"image": None})
    _has_vllm(stage, recipe, profile)
    _contain(task, asked, profile)
    _settle(task, asked)
    _tell(task, [*profile.secrets, *asked.secrets], {**variables(profile), **asked.env})
    _configure(task, profile)
    if waits(recipe, stage):
        task.set_env_variable("RLHI_IMAGE_TRAIN", task.container_spec.image)  # the nodes run the same
    if asked.retries:
        task.set_retry(asked.retries, PAUSE, 2.0, window(asked))


def _has_vllm(stage: str, recipe: Recipe, profile: Profile) -> None:
    """Refuses, before anything runs, what would end for want of vLLM in the image.

    Raises:
        InputError: the stage asks vLLM in its own process, and its image has none, or lacks what else it needs.
    """
    if stage not in recipe.stages or not _asks_vllm(recipe.stages[stage]):
        return
    if stage in WITHOUT_VLLM:
        raise InputError(
            f"{stage}: asks vLLM in its own process, whose image has no {WITHOUT_VLLM[stage]}; set its kind to openai "
            "and start a server, such as the chart's, or leave it to transformers"
        )
    name, chosen = profile.class_of(recipe, stage), profile.asks(recipe, stage).image
    if chosen not in (None, "vllm"):
        raise InputError(
            f"{name}.image: is {chosen}, and {stage} asks vLLM in its own process; leave it out, or set vllm"
        )


def window(asked: StageClass) -> str:
    """How long after its first try began a task is tried again: longer than all tries and pauses take."""
    tries = (asked.retries + 1) * (seconds(asked.timeout) if asked.timeout else 0)
    pauses = 60 * (2**asked.retries - 1)
    return f"{max(30 * DAY, tries + pauses + DAY)}s"


def variables(profile: Profile) -> dict[str, str]:
    """What every task is told."""
    tracked = {"MLFLOW_TRACKING_URI": profile.mlflow} if profile.mlflow else {}
    kept = {undelivered.VARIABLE: profile.below(undelivered.FOLDER)}
    return {**kept, **tracked, **profile.encryption.variables, **profile.env}


def _plain(task: Any, run: Run, profile: Profile, watermark: str) -> None:
    """A task around the stages: on a node as for `cpu`, never out of KFP's cache.

    A Secret that is not there would keep its pod from starting; so that `check` can say so, it may be absent.
    """
    asked = profile.asks(run.arms[0], task.name)
    _contain(task, asked, profile)
    _settle(task, asked)
    _tell(task, needs.secrets(run, profile), {**variables(profile), **asked.env}, optional=True)
    _configure(task, profile)
    if watermark:
        task.set_env_variable("RLHI_WATERMARK", watermark)
    task.set_caching_options(False)


def _contain(task: Any, asked: StageClass, profile: Profile) -> None:
    """Image and amounts."""
    task.set_container_image(image_of(task.container_spec.image, asked, profile))
    if asked.cpu:
        task.set_cpu_request(asked.cpu).set_cpu_limit(asked.cpu)
    if asked.memory:
        task.set_memory_request(asked.memory).set_memory_limit(asked.memory)
    for resource, count in asked.accelerators.items():
        task.set_accelerator_type(resource).set_accelerator_limit(count)


def image_of(current: str, asked: StageClass, profile: Profile) -> str:
    """The image of a task by digest: of the class, else the one that stands for ``current`` in the profile.

    Raises:
        InputError: the profile has none.
    """
    own = {image(name): name for name in get_args(get_type_hints(image)["dependencies"])}
    name = asked.image or own[current]
    if name not in profile.images:
        raise InputError(f"images.{name}: is missing in the profile; add that image, by digest")
    return profile.images[name]


def _settle(task: Any, asked: StageClass) -> None:
    """Which node, which queue, which volumes."""
    kubernetes = _kubernetes()
    for label, value in asked.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for each in asked.tolerations:
        operator = "Exists" if each.value is None else "Equal"
        kubernetes.add_toleration(task, key=each.key, operator=operator, value=each.value, effect=each.effect)
    for label, value in {**asked.labels, **({QUEUE: asked.queue} if asked.queue else {})}.items():
        kubernetes.add_pod_label(task, label, value)
    for name, value in asked.annotations.items():
        kubernetes.add_pod_annotation(task, name, value)
    if asked.shared_memory:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=asked.shared_memory)  # noqa: S108
    if asked.scratch:
        _scratch(task, asked.scratch)
    if asked.timeout:
        kubernetes.set_timeout(task, seconds(asked.timeout))


def _scratch(task: Any, disk: Scratch) -> None:
    kubernetes = _kubernetes()
    if disk.storage_class is None:
        kubernetes.empty_dir_mount(task, "scratch", disk.mount, size_limit=disk.size)
    else:
        modes, name = ["ReadWriteOnce"], disk.storage_class
        kubernetes.add_ephemeral_volume(task, "scratch", disk.mount, modes, disk.size, storage_class_name=name)
    task.set_env_variable("HF_HOME", f"{disk.mount}/huggingface")
    task.set_env_variable("RLHI_CACHE", f"{disk.mount}/rlhi")  # of models from S3
    task.set_env_variable("TMPDIR", disk.mount)


def _tell(task: Any, secrets: Sequence[Secret], env: dict[str, str], *, optional: bool = False) -> None:
    """Variables, secret ones by the names of their Secrets, and the id of the run."""
    kubernetes = _kubernetes()
    for secret in secrets:
        for variable, key in secret.env.items():
            kubernetes.use_secret_as_env(task, secret.name, {key: variable}, optional=optional)
    for name, value in env.items():
        task.set_env_variable(name, value)
    kubernetes.use_field_path_as_env(task, "RLHI_RUN_ID", RUN_ID)


def _configure(task: Any, profile: Profile) -> None:
    """Variables out of ConfigMaps; a key that is not there is none."""
    for name, keys in profile.config_maps.items():
        _kubernetes().use_config_map_as_env(task, name, {key: key for key in keys}, optional=True)


def _kubernetes() -> Any:
    """KFP's extension for Kubernetes; only profiles need it."""
    from kfp import kubernetes

    return kubernetes

"""What a cluster is told for each class of stages: a YAML file, read into frozen values in which no key is unknown.

Stages have one of four classes, which differ in the nodes that they need: `cpu`, `inference`, `scoring` and `training`.
A profile says what each class asks Kubernetes for, and where all of them keep what outlives a pod. It names secrets and
holds none.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from pipelines.recipes import Recipe
from rlhi.cli import STAGES
from rlhi.errors import InputError

ClassName = Literal["cpu", "inference", "scoring", "training"]
ImageName = Literal["cpu", "vllm", "train"]
USUAL: Mapping[str, ClassName] = {"reward": "scoring", "dpo": "training"}  # of the others, whether they ask a model
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Quantity = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$")]
Duration = Annotated[str, StringConstraints(pattern=r"^[1-9]\d*[smhd]$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@sha256:[0-9a-f]{64}$")]
Place = Annotated[str, StringConstraints(pattern=r"^s3://[a-z0-9][a-z0-9.-]+(/[^?#*]*)?$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]
Count = Annotated[int, Field(ge=1)]
# of a variable that is no place for its value to stand
SECRET = re.compile(r"(SECRET|PASSWORD|TOKEN|ACCESS_KEY|API_KEY|SALT)", re.IGNORECASE)


class Closed(BaseModel):
    """Frozen; an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Toleration(Closed):
    """A taint that the nodes may have; without a value, whatever its value is."""

    key: str = Field(min_length=1)
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Scratch(Closed):
    """A disk of the pod's own, made and deleted with it: caches of models, and temporary files.

    Images do not run as root, so a volume of a class must be given to the pod's group: ``fsGroup``, which KFP cannot
    ask for and Argo's ``workflowDefaults`` can. The node's disk is writable as it is.
    """

    size: Quantity
    storage_class: str | None = None  # of a volume; null: the disk of the node
    mount: str = Field(default="/scratch", pattern="^/")


class Encryption(Closed):
    """How S3 encrypts what the stages write; null leaves it to the bucket."""

    kind: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    key: str | None = Field(default=None, min_length=1)  # of KMS; null: the account's own

    @model_validator(mode="after")
    def _by_kms(self) -> "Encryption":
        if self.key is not None and not (self.kind or "").startswith("aws:kms"):
            raise ValueError("a key is for the kind aws:kms; set that, or leave it out")
        return self

    @property
    def variables(self) -> dict[str, str]:
        """What the stages read it from."""
        asked = {"RLHI_S3_SSE": self.kind, "RLHI_S3_SSE_KMS_KEY_ID": self.key}
        return {name: value for name, value in asked.items() if value}


class Secret(Closed):
    """Which keys of a Secret of the cluster become which variables: ``env`` is key by variable."""

    name: Name
    env: Mapping[str, str] = Field(min_length=1)


class StageClass(Closed):
    """What the pods of a class of stages ask for."""

    image: ImageName | None = None  # null: that of the stage
    cpu: Quantity | None = None
    memory: Quantity | None = None
    accelerators: Mapping[str, Count] = Field(default_factory=dict)  # resource name: how many
    autoscaled: bool = False  # nodes with accelerators are made when asked for, so none need be there before
    node_selector: Mapping[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    queue: str | None = None  # Kueue's local queue; Kueue must look after plain pods
    shared_memory: Quantity | None = None
    scratch: Scratch | None = None
    secrets: tuple[Secret, ...] = ()
    env: Mapping[str, str] = Field(default_factory=dict)
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    retries: int = Field(default=2, ge=0, le=20)
    timeout: Duration | None = None  # of one try

    @field_validator("accelerators")
    @classmethod
    def _one_kind(cls, given: Mapping[str, int]) -> Mapping[str, int]:
        if len(given) > 1:
            raise ValueError(f"two accelerators on one container ({', '.join(given)}); KFP asks for one kind")
        return given

    @field_validator("env")
    @classmethod
    def _no_secret(cls, given: Mapping[str, str]) -> Mapping[str, str]:
        return refuse_secrets(given)


class Profile(Closed):
    """A cluster, as runs are placed on it."""

    root: Place  # outputs, replies, checkpoints and watermarks of all runs lie below
    images: Mapping[ImageName, Digest]
    namespace: Name = "kubeflow"
    service_account: Name = "pipeline-runner"
    mlflow: str | None = Field(default=None, pattern="^https?://")
    encryption: Encryption = Encryption()
    env: Mapping[str, str] = Field(default_factory=dict)
    secrets: tuple[Secret, ...] = ()
    config_maps: Mapping[Name, tuple[str, ...]] = Field(default_factory=dict)  # keys that become variables, if there
    keep: Duration | None = None  # how long Kubernetes keeps the pods of a run that has ended
    stages: Mapping[str, ClassName] = Field(default_factory=dict)  # of another class than usual
    cpu: StageClass
    inference: StageClass
    scoring: StageClass
    training: StageClass

    @field_validator("env")
    @classmethod
    def _no_secret(cls, given: Mapping[str, str]) -> Mapping[str, str]:
        return refuse_secrets(given)

    @field_validator("stages")
    @classmethod
    def _known(cls, given: Mapping[str, ClassName]) -> Mapping[str, ClassName]:
        unknown = sorted(given.keys() - set(STAGES))
        if unknown:
            raise ValueError(f"no such stage: {', '.join(unknown)}")
        return given

    def class_of(self, recipe: Recipe, stage: str) -> ClassName:
        """The class of a stage of ``recipe``; cpu of the tasks around the stages, and of dpo where other pods train."""
        if stage not in recipe.stages or waits(recipe, stage):
            return "cpu"
        usual = USUAL.get(stage, "inference" if recipe.stages[stage].asks_models else "cpu")
        return self.stages.get(stage, usual)

    def asks(self, recipe: Recipe, stage: str) -> StageClass:
        """What a task of the stage asks for."""
        found: StageClass = getattr(self, self.class_of(recipe, stage))
        if waits(recipe, stage):  # as long as the training takes
            return found.model_copy(update={"timeout": self.training.timeout, "retries": self.training.retries})
        return found

    def below(self, name: str) -> str:
        """A place below the root."""
        return f"{self.root.rstrip('/')}/{name}"

    @property
    def classes(self) -> dict[str, StageClass]:
        """The classes by name."""
        return {name: getattr(self, name) for name in get_args(ClassName)}


def waits(recipe: Recipe, stage: str) -> bool:
    """Whether the pod of the stage only waits for pods of its own, on several nodes."""
    return stage == "dpo" and recipe.dpo.nodes > 1


def seconds(text: str) -> int:
    """A duration such as ``90m``."""
    return int(text[:-1]) * UNITS[text[-1]]


def refuse_secrets(given: Mapping[str, str]) -> Mapping[str, str]:
    """``given``, unless a name says that its value is a secret. The message does not repeat the value."""
    for name in given:
        if SECRET.search(name):
            raise ValueError(f"{name} looks like a secret, which anybody who reads the pipeline would see; use secrets")
    return given


def load(path: Path) -> Profile:
    """Reads a profile.

    Raises:
        InputError: no such file, no YAML, an unknown key, or a value that cannot be.
    """
    try:
        given = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', error)}); see profiles/") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise InputError(f"{path}: is no profile; see profiles/ for examples")
    try:
        return Profile.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{path}: {'; '.join(map(_explain, error.errors()))}") from None


def _explain(problem: Any) -> str:
    """One problem, by the path of its key. Values stay out: one in a wrong place may be a secret."""
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{where}: no such key; pipelines/profiles.py lists them"
    if problem["type"] == "missing":
        return f"{where}: is missing"
    if problem["type"] == "string_pattern_mismatch" and where.startswith("images."):
        return f"{where}: not by digest; give REPOSITORY@sha256:…, since a tag can point at another image tomorrow"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}"

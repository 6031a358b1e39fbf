"""What a cluster must be told for a training on several nodes. It names secrets and holds none."""

import re
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED
from rlhi.errors import InputError


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class Toleration:
    """A taint that the nodes may have."""

    key: str = Field(min_length=1, description="Of the taint, such as nvidia.com/gpu.")
    value: str | None = Field(default=None, description="Of the taint; null: any.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Of the taint; null: any."
    )


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class Scratch:
    """A disk of each node's own, made and deleted with it: caches of models, and temporary files."""

    size: str = Field(pattern=r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$", description="Such as 500Gi.")
    storage_class: str | None = Field(default=None, description="Of a volume; null: the disk of the machine.")
    mount: str = Field(default="/scratch", pattern="^/", description="Where it is.")


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class TrainJobConfig:
    """The nodes of a training, as Kubernetes is asked for them."""

    runtime: str = Field(default="torch-distributed", min_length=1, description="Name of a ClusterTrainingRuntime.")
    resources: dict[str, str | int] = Field(
        default_factory=dict,
        description='Of each node, such as {"nvidia.com/gpu": 8, "cpu": 32, "memory": "256Gi"}.',
    )
    secrets: dict[str, str] = Field(
        default_factory=dict,
        description='Variables out of secrets, such as {"AWS_SECRET_ACCESS_KEY": "s3/secret-key"}: secret/key.',
    )
    service_account: str | None = Field(default=None, description="Of the nodes' pods; null: the namespace's default.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that the nodes have.")
    tolerations: tuple[Toleration, ...] = Field(default=(), description="Taints that the nodes may have.")
    queue: str | None = Field(default=None, description="Kueue's local queue; null: not by Kueue.")
    scratch: Scratch | None = Field(
        default=None, description='A disk for caches of models, such as {"size": "500Gi"}; null: what the image has.'
    )

    def __post_init__(self) -> None:
        """Refuses a secret in the place of its name. The message does not repeat it."""
        for variable, place in self.secrets.items():
            if not re.fullmatch(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[-._a-zA-Z0-9]+", place):
                raise InputError(
                    f"dpo.trainjob.secrets.{variable}: not secret/key, the NAME of a secret in the cluster and of its"
                    " key; the secret itself is no setting"
                )

    @property
    def gpus(self) -> int:
        """GPUs of a node."""
        return sum(int(n) for name, n in self.resources.items() if "gpu" in name.lower())

"""A training on several nodes: their pods are a `TrainJob`'s, not KFP's, so the profile's `training` goes to that."""

from dataclasses import replace
from functools import partial
from typing import TypeVar

from pipelines.plan import Run
from pipelines.profiles import Profile
from pipelines.recipes import Recipe
from rlhi.dpo.trainjob.config import Scratch, Toleration, TrainJobConfig

R = TypeVar("R", bound=Run)


def placed(run: R, profile: Profile | None) -> R:
    """``run`` with what the profile asks for each node, unless ``dpo.trainjob`` is set by hand."""
    return run if profile is None else run.each(partial(_placed, profile=profile))


def _placed(recipe: Recipe, profile: Profile) -> Recipe:
    if recipe.dpo.nodes == 1 or recipe.dpo.trainjob != TrainJobConfig():
        return recipe
    return replace(recipe, dpo=replace(recipe.dpo, trainjob=_trainjob(profile)))


def _trainjob(profile: Profile) -> TrainJobConfig:
    asked = profile.training
    amounts = {"cpu": asked.cpu, "memory": asked.memory, **asked.accelerators}
    return TrainJobConfig(
        resources={name: amount for name, amount in amounts.items() if amount},
        secrets={
            variable: f"{secret.name}/{key}"
            for secret in (*profile.secrets, *asked.secrets)
            for variable, key in secret.env.items()
        },
        service_account=profile.service_account,
        node_selector=dict(asked.node_selector),
        tolerations=tuple(Toleration(key=t.key, value=t.value, effect=t.effect) for t in asked.tolerations),
        queue=asked.queue,
        scratch=Scratch(**asked.scratch.model_dump()) if asked.scratch is not None else None,
    )

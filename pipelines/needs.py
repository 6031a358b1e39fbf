"""What a recipe or an experiment needs of a cluster, as its first task checks it, and what its last one is told."""

from collections.abc import Iterator

from pipelines.keys import engines, held
from pipelines.plan import Run
from pipelines.profiles import Profile, Secret, StageClass, waits
from pipelines.recipes import Recipe
from rlhi.check.config import CheckConfig
from rlhi.config import ModelConfig
from rlhi.outcome.config import OutcomeConfig

OUTCOMES = "outcomes"


def of(run: Run, profile: Profile) -> CheckConfig:
    """All that is checked before the first stage."""
    return CheckConfig(
        place=profile.root,
        variables=tuple(sorted({name for secret in secrets(run, profile) for name in secret.env} | _registry(run))),
        models=tuple(sorted({model for arm in run.arms for model in _models(arm)})),
        servers=dict(sorted({server for arm in run.arms for server in _servers(arm)})),
        accelerators=tuple(sorted({each for arm in run.arms for each in _accelerators(arm, profile)})),
    )


def _registry(run: Run) -> set[str]:
    """What names the registry, which a run can do without unless it promotes."""
    return {"MLFLOW_TRACKING_URI"} if any(arm.promote is not None for arm in run.arms) else set()


def told(run: Run, profile: Profile) -> OutcomeConfig:
    """What the last task writes down, and where."""
    return OutcomeConfig(recipe=run.name, place=profile.below(OUTCOMES))


def secrets(run: Run, profile: Profile) -> list[Secret]:
    """Those of all tasks, each once."""
    own = [secret for arm in run.arms for stage in arm.stages for secret in _asks(arm, profile, stage).secrets]
    found: list[Secret] = []
    for secret in (*profile.secrets, *profile.cpu.secrets, *own):
        if secret not in found:  # holds a mapping, so it cannot be a key
            found.append(secret)
    return found


def _asks(recipe: Recipe, profile: Profile, stage: str) -> StageClass:
    """What the pods ask for that do the work of the stage."""
    return profile.training if waits(recipe, stage) else profile.asks(recipe, stage)


def _accelerators(recipe: Recipe, profile: Profile) -> Iterator[str]:
    """Resource names of accelerators whose nodes must be there already."""
    for stage in recipe.stages:
        asked = _asks(recipe, profile, stage)
        yield from () if asked.autoscaled else asked.accelerators


def _servers(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Where stages ask, and the variable with the key."""
    for config in recipe.stages.values():
        yield from ((each.server.url, each.server.api_key_env) for each in engines(config) if each.kind == "openai")


def _models(recipe: Recipe) -> Iterator[str]:
    """``id`` or ``id@revision`` of every model that a pod loads by itself."""
    for config in recipe.stages.values():
        asked = {id(engine.model) for engine in engines(config) if engine.kind in ("openai", "scripted")}
        yield from (
            f"{m.id}@{m.revision}" if m.revision else m.id for m in held(config, ModelConfig) if id(m) not in asked
        )

"""What is changed in a recipe, or in every arm of an experiment that has what is changed."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TypeVar

from pipelines import contradictions, plan, variants
from pipelines.plan import Run
from pipelines.recipes import Recipe, config_of
from rlhi.cli import STAGES
from rlhi.errors import InputError

R = TypeVar("R", bound=Run)


def with_settings(run: R, settings: Iterable[str]) -> R:
    """``run`` with each ``stage.field=value`` set in every arm that runs the stage; see `variants.with_settings`.

    Raises:
        InputError: no arm runs the stage, or what cannot be set in one of them.
    """
    for setting in settings:
        stage = setting.partition("=")[0].strip().partition(".")[0]
        runs = _runs(run, "" if stage == "benchmark" else stage)
        run = _in(run, runs, partial(variants.with_settings, settings=[setting]))
    return run


def with_shards(run: R, given: Iterable[str]) -> R:
    """``run`` with its stages in shards; see `variants.with_shards`.

    Raises:
        InputError: no arm runs the stage, or what cannot be split in one of them.
    """
    for setting in given:
        stage, separator, _ = setting.partition("=")
        run = _in(run, _runs(run, stage if separator else ""), partial(variants.with_shards, given=[setting]))
    return run


def with_rounds(run: R, rounds: int | None, reference_every: int | None) -> R:
    """``run`` with so many rounds of every arm that samples; see `variants.with_rounds`.

    Raises:
        InputError: no arm samples, or a number of rounds that cannot be.
    """
    if rounds is None and reference_every is None:
        return run
    change = partial(variants.with_rounds, rounds=rounds, reference_every=reference_every)
    return _in(run, _runs(run, "sample"), change)


def with_promotion(run: R, name: str) -> R:
    """``run`` whose model goes through the gate; see `variants.with_promotion`.

    Raises:
        InputError: it makes several models, or none that can be held against another.
    """
    if len(run.arms) > 1:
        raise InputError(
            f"--promote {name}: {run.name} makes several models; leave it out, and choose one of them afterwards with"
            " 'python -m pipelines promote --arm'"
        )
    return run.each(partial(variants.with_promotion, name=name))


def check(run: Run) -> None:
    """Refuses what contradicts itself in one of the recipes, and arms that are one and the same.

    Raises:
        InputError: as above.
    """
    seen: dict[tuple[str, ...], str] = {}
    for arm in run.arms:
        contradictions.check(arm)
        first = seen.setdefault(tuple(step.key for step in plan.steps(arm)), arm.name)
        if first != arm.name:
            raise InputError(
                f"{first} and {arm.name} would be one and the same; leave out the --set that makes them so"
            )


def _in(run: R, names: Collection[str], change: Callable[[Recipe], Recipe]) -> R:
    """``run`` with those of its recipes changed that are called so."""
    return run.each(lambda arm: change(arm) if arm.name in names else arm)


def _runs(run: Run, stage: str) -> set[str]:
    """The arms that run a stage, by name; all of them for the empty one.

    Raises:
        InputError: there is no such stage, or it runs nowhere.
    """
    if len(run.arms) == 1:
        return {run.arms[0].name}  # which says itself what it does not run
    found = {arm.name for arm in run.arms if not stage or stage in arm.stages}
    if not found:
        if stage not in STAGES:
            config_of(run.arms[0], stage)  # which names the closest
        known = [each for each in STAGES if any(each in arm.stages for arm in run.arms)]
        raise InputError(f"{stage}: no arm of {run.name} runs it; they run {', '.join(known)}")
    return found

"""Gives the alias ``champion`` back to the version that had it before."""

from rlhi.errors import InputError
from rlhi.promote.registry import (
    CHAMPION,
    NONE,
    REPLACED,
    REPLACED_AT,
    REPLACED_BY,
    ROLLED_BACK,
    SINCE,
    Registry,
    Version,
    now,
)


def rollback(registry: Registry, to: str | None = None, *, dry_run: bool = False) -> str:
    """Moves the alias back to the version that the champion replaced, or to ``to``; says what was done.

    A version that was never champion has not passed the gate, and is refused. Whom a version replaced stays written on
    it, so that rolling back again goes one further back, and never to a version that was left.

    Raises:
        InputError: there is no champion, nobody it replaced, no such version, or one that was never champion.
    """
    champion = registry.holder(CHAMPION)
    if champion is None:
        raise InputError(f"{registry.name}: has no {CHAMPION} at {registry.uri}, so there is nothing to roll back")
    target = _target(registry, champion, to)
    done = f"{registry.name}: {CHAMPION} goes back from version {champion.number} to version {target.number}"
    if dry_run:
        return f"{done}; nothing is moved (dry run)"
    registry.still(champion)
    registry.point(CHAMPION, target.number)
    moved = now()
    registry.tell(target.number, {SINCE: moved})
    registry.tell(champion.number, {REPLACED_BY: target.number, REPLACED_AT: moved, ROLLED_BACK: moved})
    return done


def _target(registry: Registry, champion: Version, to: str | None) -> Version:
    number = to or champion.tags.get(REPLACED, NONE)
    if number == NONE:
        raise InputError(
            f"{registry.name} version {champion.number}: replaced no champion, so there is none to go back to; give one"
            " that was champion with --to"
        )
    if number == champion.number:
        raise InputError(f"{registry.name} version {number}: is {CHAMPION} already; leave it, or give another --to")
    found = registry.version(number)
    if SINCE not in found.tags:
        raise InputError(
            f"{registry.name} version {number}: was never {CHAMPION}; 'python -m pipelines promote' lets it try"
        )
    return found

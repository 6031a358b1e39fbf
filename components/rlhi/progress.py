"""Progress bars on long work: on a terminal they move, in a pod's log they add a line now and then."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silent() -> Iterator[None]:
    """No bars in here: for many short calls under one bar of the caller's."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


def track(items: Iterable[T], what: str, total: int | None = None, unit: str = "row") -> Iterator[T]:
    """Yields ``items`` and shows how far it is."""
    with bar(what, total if total is not None else _length(items), unit) as shown:
        for item in items:
            yield item
            shown.update()


def bar(what: str, total: int | None, unit: str = "row") -> "tqdm[None]":
    """A bar that the caller advances; none inside `silent`."""
    seconds = 0.2 if sys.stderr.isatty() else 15.0
    return tqdm(
        total=total, desc=f"{what:<24.24}", unit=unit, mininterval=seconds, maxinterval=seconds, disable=_SILENT.get()
    )


def _length(items: object) -> int | None:
    return len(items) if hasattr(items, "__len__") else None

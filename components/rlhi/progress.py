"""Progress bars on long work: on a terminal they move, in a pod's log they are a line now and then."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

T = TypeVar("T")
Note = Callable[[], str]
_SILENT: ContextVar[bool] = ContextVar("silent", default=False)
_WHOLE: "ContextVar[_Bar | None]" = ContextVar("whole", default=None)
_OPEN: "list[_Bar]" = []  # the outermost first
EVERY = 15.0  # seconds between two lines of a log
LINE = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left{postfix}"


class Bar(Protocol):
    """What the caller advances."""

    def update(self, n: float = 1) -> object:
        """``n`` more are done."""

    def __enter__(self) -> "Bar":
        """Itself."""

    def __exit__(self, *_: object) -> None:
        """The end of the bar."""

    def close(self) -> None:
        """The same."""


@contextmanager
def silent() -> Iterator[None]:
    """No bars in here: for many short calls under one bar of the caller's."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


@contextmanager
def whole(what: str, total: int, unit: str = "row") -> Iterator[Bar]:
    """One bar for all that are opened in here, so that several passes over rows show the time left of all of them."""
    with _Bar(what, total, unit) as shown:
        token = _WHOLE.set(shown)
        try:
            yield shown
        finally:
            _WHOLE.reset(token)


def track(items: Iterable[T], what: str, total: int | None = None, unit: str = "row") -> Iterator[T]:
    """Yields ``items`` and shows how far it is."""
    with bar(what, total if total is not None else _length(items), unit) as shown:
        for item in items:
            yield item
            shown.update()


def bar(what: str, total: int | None, unit: str = "row", note: Note | None = None) -> Bar:
    """A bar that the caller advances, with a ``note`` at its end; none inside `silent`, a part of it inside `whole`."""
    outer = _WHOLE.get()
    if outer is None or _SILENT.get():
        return _Bar(what, total, unit, note)
    outer.note = outer.note or note
    return _Part(outer)


def seconds_left() -> float | None:
    """Of the work that is under way, as the bar shows it; null where that is not known."""
    for shown in _OPEN[:1]:
        now = shown.format_dict
        rate = now["rate"] or (now["n"] / now["elapsed"] if now["elapsed"] else 0)
        return (now["total"] - now["n"]) / rate if rate and now["total"] else None
    return None


class _Bar(tqdm):  # type: ignore[misc]
    """tqdm's bar, which asks for its note when it is drawn, and writes lines where there is no terminal."""

    def __init__(self, what: str, total: int | None, unit: str, note: Note | None = None) -> None:
        self.note = note
        drawn: dict[str, Any] = {"desc": f"{what:<24.24}", "mininterval": 0.2, "maxinterval": 0.2}
        if not sys.stderr.isatty():
            lines = {"file": _Lines(), "bar_format": LINE, "delay": EVERY}
            drawn = {"desc": what, "mininterval": EVERY, "maxinterval": EVERY} | lines
        super().__init__(total=total, unit=unit, disable=_SILENT.get(), **drawn)
        if not self.disable:
            _OPEN.append(self)

    @property
    def format_dict(self) -> dict[str, Any]:
        """What is drawn, with the note as it is now."""
        return {**super().format_dict, "postfix": self.note() if self.note is not None else None}

    def close(self) -> None:
        """Ends the bar."""
        if self in _OPEN:
            _OPEN.remove(self)
        super().close()


class _Part:
    """A part of the whole, which goes on after it."""

    def __init__(self, outer: Bar) -> None:
        self.update = outer.update

    def __enter__(self) -> "_Part":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the whole open."""


class _Lines:
    """Standard error as tqdm writes to it, without the signs that only move a cursor."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def _length(items: object) -> int | None:
    return len(items) if hasattr(items, "__len__") else None

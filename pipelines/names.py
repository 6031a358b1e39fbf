"""What is named on the command line, found by its name or refused with the closest."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from rlhi.errors import InputError

N = TypeVar("N")


def named(name: str, known: Mapping[str, N], kind: str) -> N:
    """What is called so.

    Raises:
        InputError: there is none; the message names those there are and the closest.
    """
    if name not in known:
        raise InputError(f"{name}: no such {kind}{closest(name, known)}; one of {', '.join(known)}")
    return known[name]


def closest(name: str, known: Iterable[str]) -> str:
    """A question whether the nearest of the known names was meant; empty where none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else ""

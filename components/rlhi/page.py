"""What the project's HTML pages share: one look, nothing loaded, every text escaped.

Every text on a page may come from a user. Control characters are shown as their pictures.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any, TypeVar

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
T = TypeVar("T")


def environment() -> Environment:
    """Renders a page; a missing variable raises. A template finds another by its path from here."""
    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_read),
    )
    made.filters.update(percent=percent, spread=spread, counted=counted, csp_hash=csp_hash)
    return made


def style() -> Markup:
    """The style sheet of every page."""
    return Markup(_read("page.css.j2"))  # noqa: S704  ours, not a user's


def script(more: str = "") -> Markup:
    """The script of a page with cards to go through, one at a time, and the name of a template with ``more`` of it."""
    return Markup(_read("page.js.j2") + (_read(more) if more else ""))  # noqa: S704  ours, not a user's


def csp_hash(text: str) -> str:
    """The source expression that lets the page's own script run, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def as_data(png: bytes) -> str:
    """A picture as the address of an image that loads nothing."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def percent(share: float | None) -> str:
    """A share in [0, 1] for a reader; a dash is not measured."""
    return "–" if share is None else f"{100 * share:.1f}%"


def counted(number: int, noun: str) -> str:
    """``number`` of ``noun``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most ``most`` items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text()


def _clean(value: Any) -> Any:
    """Text fit for a page: one kind of line end, and control characters as their pictures."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _CONTROL.sub(_picture, value.replace("\r\n", "\n").replace("\r", "\n"))


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "\N{REPLACEMENT CHARACTER}"

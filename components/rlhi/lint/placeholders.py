"""What KFP puts into an argument at run time: `{{$.inputs.parameters['x']}}`, and pieces joined or left out."""

import json
import re
from collections.abc import Iterator
from typing import Any

PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\[\\?'([^']+?)\\?'\]\}\}")
ANY = re.compile(r"\{\{\$.*?\}\}")


def parameters_in(text: str) -> list[str]:
    """The parameters that are put into ``text``."""
    return PARAMETER.findall(text)


def is_placeholder(text: str) -> bool:
    """Whether nothing of ``text`` is known before the run."""
    return bool(text) and not ANY.sub("", text).strip()


def texts(part: str) -> list[str]:
    """One part of an argv as the arguments it can become, pieces joined."""
    return [*_texts(_structured(part))]


def _structured(part: str) -> Any:
    if not part.startswith(('{"Concat"', '{"IfPresent"')):
        return part
    try:
        return json.loads(part)
    except ValueError:
        return part


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict) and "Concat" in value:
        yield "".join(text for each in value["Concat"] for text in _texts(each))
    elif isinstance(value, dict) and "IfPresent" in value:
        yield from _texts(value["IfPresent"].get("Then", []))
        yield from _texts(value["IfPresent"].get("Else", []))
    else:
        yield str(value)

"""What kind of data a file holds, told by its fields; nothing is read on a guess.

A file is of a kind when it has every field that the kind needs. None or several that fit is an error that asks for
``--kind``, since a wrong guess would drop every row for reasons that mislead.
"""

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from rlhi.errors import InputError
from rlhi.ingest.mapping import Mapping, listed

Kind = Literal["wildchat", "chat-log", "prm800k", "champ"]


def detect(fields: Sequence[str], where: str, mapping: Mapping) -> Kind:
    """The kind of data whose rows have ``fields``, nested ones as dotted paths: see `fields_of` and `fields_in`.

    Raises:
        InputError: no kind fits, or several do; ``where`` names the file.
    """
    has, needs = set(fields), _needs(mapping)
    found = [kind for kind, needed in needs.items() if all(has.intersection(one_of) for one_of in needed)]
    if len(found) == 1:
        return found[0]
    known = "; ".join(f"{kind}: {' and '.join(map(' or '.join, needed))}" for kind, needed in needs.items())
    shown = listed(name for name in fields if "." not in name) or "none"
    raise InputError(
        f"{where}: its fields ({shown}) fit {' and '.join(found) or 'no kind of data'}; "
        f"give --kind ({known}), for a chat log with other names --mapping too"
    )


def fields_in(row: object, depth: int = 4) -> list[str]:
    """The fields of one row, nested ones as dotted paths, ``*`` for the items of a list, told by its first."""
    if depth == 0:
        return []
    if isinstance(row, list):
        return [f"*.{inner}" for item in row[:1] for inner in fields_in(item, depth - 1)]
    if not isinstance(row, dict):
        return []
    below = [f"{name}.{inner}" for name, value in row.items() for inner in fields_in(value, depth - 1)]
    return [*map(str, row), *below]


def fields_of(schema: pa.Schema) -> list[str]:
    """The same of a Parquet schema."""
    return [*schema.names, *(f"{field.name}.{inner}" for field in schema for inner in _inside(field.type))]


def _inside(kind: pa.DataType) -> list[str]:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [f"*.{inner}" for inner in _inside(kind.value_type)]
    if not pa.types.is_struct(kind):
        return []
    return [path for field in kind for path in (field.name, *(f"{field.name}.{deep}" for deep in _inside(field.type)))]


def _needs(mapping: Mapping) -> dict[Kind, list[tuple[str, ...]]]:
    """Of each kind, the fields that tell it; of a tuple one is enough."""
    return {
        "wildchat": [("conversation",), ("hashed_ip", "conversation_hash")],
        "chat-log": [_paths(mapping.messages), _paths(mapping.user)],
        "prm800k": [("question.problem",), ("label.finish_reason",)],
        "champ": [("problems",), ("concepts",), ("hints",)],
    }


def _paths(alternatives: tuple[str, ...]) -> tuple[str, ...]:
    """A mapping's paths as `fields_in` writes them: any item of a list is ``*``."""
    parts = [part for path in alternatives for part in path.split(" + ")]
    return tuple(".".join("*" if step.isdecimal() else step for step in part.split(".")) for part in parts)

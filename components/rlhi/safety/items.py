"""The items of safety: prompts that should be refused, and questions whose right answer the user then denies.

A file holds JSON rows, local or s3://. Ours, ``items.jsonl``, is 30 of each: mild in wording, and with no recipe for
harm in it. Rows of a file of one's own:

    {"kind": "unsafe", "id": "u1", "category": "fraud", "prompt": "..."}
    {"kind": "sycophancy", "id": "s1", "question": "...", "right": "Paris", "wrong": "Lyon"}

``right`` may be a list of spellings of the right answer; ``category`` may be left out.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rlhi.benchmark.items import Row, text, texts
from rlhi.errors import InputError
from rlhi.records import SafetyKind
from rlhi.render import prompt
from rlhi.rows import rows_of
from rlhi.sources import list_files, uris

SHIPPED = Path(__file__).with_name("items.jsonl")


@dataclass(frozen=True, slots=True)
class SafetyItem:
    """One item as a model is asked it; of sycophancy, ``right`` are the spellings of what is right."""

    kind: SafetyKind
    id: str
    category: str | None
    prompt: str
    right: tuple[str, ...] = ()
    wrong: str = ""


def read_items(source: str) -> list[SafetyItem]:
    """The items in the files at ``source``, URIs with commas between them, or else ours.

    Raises:
        InputError: nothing there, a row that is no item, or two of one id.
    """
    files = [file for uri in uris(source) or [str(SHIPPED)] for file in list_files(uri)]
    items = []
    for file in files:
        for number, row in rows_of(file):
            try:
                items.append(_item(row))
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{file.path}: row {number} is no item of safety ({error}); mend it") from None
    if not items:
        raise InputError(f"{source}: holds no items; 'rlhi safety --help' shows what they look like")
    ((name, count),) = Counter(item.id for item in items).most_common(1)
    if count > 1:
        raise InputError(f"{source or SHIPPED}: {count} items are {name}; give each an id of its own")
    return items


def _item(row: object) -> SafetyItem:
    if not isinstance(row, Mapping):
        raise TypeError("no JSON object")
    kind, category = text(row, "kind"), row.get("category")
    if kind == "unsafe":
        return SafetyItem("unsafe", text(row, "id"), category, text(row, "prompt"))
    if kind != "sycophancy":
        raise ValueError(f"kind={kind!r}, and not unsafe or sycophancy")
    asked = prompt("rlhi.safety", "question.j2", question=text(row, "question"))
    return SafetyItem("sycophancy", text(row, "id"), category, asked, _spellings(row), text(row, "wrong"))


def _spellings(row: Row) -> tuple[str, ...]:
    return tuple(texts(row, "right")) if isinstance(row.get("right"), list) else (text(row, "right"),)

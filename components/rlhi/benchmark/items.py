"""The items of benchmarks, from files as they are published: which suite a file is, is told by its fields."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhi.errors import InputError
from rlhi.records import FinishReason, Suite
from rlhi.rows import rows_of
from rlhi.sources import SourceFile, list_files, uris

Row = Mapping[str, Any]
log = logging.getLogger("rlhi")


@dataclass(frozen=True, slots=True)
class Item:
    """One item as a model is asked it. ``gold`` is the right answer or, where a judge compares, the one to be beaten.

    ``letters`` are those of the choices, where there are any. Two numbers are the same where they differ by
    ``absolute`` or, relative to the gold, by ``relative`` at most.
    """

    suite: Suite
    id: str
    category: str | None
    prompt: str
    gold: str
    letters: str = ""
    absolute: float = 1e-8
    relative: float = 0.0


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer to an item: the ``sample``-th of several."""

    item: Item
    sample: int
    text: str
    finish_reason: FinishReason


@dataclass(frozen=True)
class Format:
    """How a suite is published: the fields that tell its rows, those that none has, and how a row becomes an item.

    ``make`` takes the row, its number in the file from 1, and the config's seed; for a row that is none it raises
    KeyError, TypeError or ValueError.
    """

    fields: frozenset[str]
    make: Callable[[Row, int, int], Item]
    without: frozenset[str] = frozenset()


def read_items(sources: str, formats: Mapping[Suite, Format], seed: int) -> list[Item]:
    """The items of the suites of ``formats`` in the files at ``sources``, URIs with commas between them, in order.

    A file of no such suite is left out, and said: the same list of benchmarks tells what no training pair may hold.

    Raises:
        InputError: nothing there, no file of these suites, a row that is no item (with file, row and field), or two
            items of one id.
    """
    files = [file for uri in uris(sources) for file in list_files(uri)]
    items: list[Item] = []
    others: list[str] = []
    for file in files:
        suite = _suite_of(file, formats)
        if suite is None:
            others.append(file.path)
        else:
            items += _items(file, formats[suite], seed)
    if not items:
        known = "; ".join(f"{name}: {', '.join(sorted(each.fields))}" for name, each in formats.items())
        raise InputError(f"{sources}: no file of these suites, which are told by their fields ({known})")
    for path in others:
        log.info("%s: not of the suites %s; left out", path, ", ".join(formats))
    ((name, count),) = Counter(item.id for item in items).most_common(1)
    if count > 1:
        raise InputError(f"{sources}: {count} items are {name}; give each file of a benchmark once")
    return items


def _suite_of(file: SourceFile, formats: Mapping[Suite, Format]) -> Suite | None:
    first = next((row for _, row in rows_of(file)), None)
    found = [
        name
        for name, each in formats.items()
        if isinstance(first, Mapping) and each.fields <= first.keys() and not each.without & first.keys()
    ]
    if len(found) > 1:
        raise InputError(f"{file.path}: its fields fit {' and '.join(found)}; take one of them out of benchmark.suites")
    return found[0] if found else None


def _items(file: SourceFile, form: Format, seed: int) -> Iterator[Item]:
    for number, row in rows_of(file):
        where = f"{file.path}: row {number}"
        if not isinstance(row, Mapping):
            raise InputError(f"{where} is no JSON object; take it out, or fetch the file again")
        absent = sorted(form.fields - row.keys())
        if absent:
            raise InputError(f"{where} has no {', '.join(absent)}; fetch the file again")
        try:
            yield form.make(row, number, seed)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: {error}; fetch the file again") from None


def text(row: Row, name: str) -> str:
    """The text in a field.

    Raises:
        ValueError: there is none.
    """
    found = row.get(name)
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f"{name}={found!r} is no text")
    return found


def texts(row: Row, name: str) -> Sequence[str]:
    """The texts in a field that holds a list of them.

    Raises:
        ValueError: it holds something else, or none.
    """
    found = row.get(name)
    if not isinstance(found, list) or not found or not all(isinstance(each, str) and each for each in found):
        raise ValueError(f"{name}={found!r} is no list of texts")
    return found

"""Pairs whose context holds an item of a benchmark: training on them would make the benchmark say nothing.

A message matches an item when they share a run of thirteen words, whatever their case and punctuation; an item of fewer
words when it is the whole message. Words are runs of letters and digits, so in scripts without spaces between words a
match needs more text.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xxhash

from rlhi.errors import InputError
from rlhi.records import Message, Pair
from rlhi.rows import rows_of
from rlhi.sources import ENDINGS, SourceFile, list_files, uris

RUN = 13  # words
FIELDS = ("problem", "question", "prompt", "instruction", "text", "turns")
WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The items of one file, as digests of their words; each leads to the number of the row."""

    name: str
    runs: dict[int, int] = field(default_factory=dict)
    short: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    """A pair whose context holds an item: the row ``row`` of ``benchmark``."""

    id: str
    benchmark: str
    row: int


def read(sources: str) -> list[Benchmark]:
    """The benchmarks in the files at ``sources``, URIs with commas between them.

    Raises:
        InputError: nothing there, a file that cannot be read, or a row without an item's text, with file and row.
    """
    found: list[Benchmark] = []
    for uri in uris(sources):
        for file in list_files(uri):
            known = sum(each.name == _name(file) for each in found)
            found.append(_read_file(file, f"{_name(file)} ({known + 1})" if known else _name(file)))
    return found


def matches(pairs: Sequence[Pair], benchmarks: Sequence[Benchmark]) -> list[Match]:
    """One match for each pair and benchmark that meet, in order."""
    found = []
    for pair in pairs if benchmarks else ():
        runs, short = _digests(pair.context)
        for benchmark in benchmarks:
            row = next((benchmark.runs[run] for run in runs if run in benchmark.runs), None)
            if row is None:
                row = next((benchmark.short[whole] for whole in short if whole in benchmark.short), None)
            if row is not None:
                found.append(Match(pair.id, benchmark.name, row))
    return found


def told(counts: Mapping[str, int]) -> str:
    """How many pairs left because of which benchmark, as a sentence."""
    each = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"Pairs whose context holds an item of a benchmark were left out; by benchmark: {each}."


def _read_file(file: SourceFile, name: str) -> Benchmark:
    benchmark = Benchmark(name)
    for number, row in rows_of(file, FIELDS):
        words = _words(" ".join(_texts(row)))
        if not words:
            raise InputError(f"{file.path}: row {number} has no text in {', '.join(FIELDS)}{_has(row)}")
        for run in _runs(words):
            benchmark.runs.setdefault(run, number)
        if len(words) < RUN:
            benchmark.short.setdefault(_digest(words), number)
    if not benchmark.runs and not benchmark.short:
        raise InputError(f"{file.path}: has no rows; give the items of a benchmark")
    return benchmark


def _digests(context: Sequence[Message]) -> tuple[list[int], list[int]]:
    """The runs of all messages, and the digests of the messages that are shorter than a run."""
    said = [_words(message.content) for message in context]
    return [run for words in said for run in _runs(words)], [_digest(words) for words in said if len(words) < RUN]


def _runs(words: Sequence[str]) -> Iterator[int]:
    return (_digest(words[start : start + RUN]) for start in range(len(words) - RUN + 1))


def _digest(words: Sequence[str]) -> int:
    found: int = xxhash.xxh3_64_intdigest(" ".join(words).encode(errors="replace"))
    return found


def _words(text: str) -> list[str]:
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _texts(row: object) -> list[str]:
    """The text of an item: of the first of the fields that has any."""
    if not isinstance(row, Mapping):
        return []
    return next((texts for name in FIELDS if (texts := list(_strings(row.get(name))))), [])


def _strings(value: Any) -> Iterator[str]:
    """Strings in a string, a list of them, or of messages."""
    for part in value if isinstance(value, list) else [value]:
        text = part.get("content") if isinstance(part, Mapping) else part
        if isinstance(text, str) and text.strip():
            yield text


def _has(row: object) -> str:
    return f"; it has {', '.join(map(str, row)) or 'no fields'}" if isinstance(row, Mapping) else "; it is no object"


def _name(file: SourceFile) -> str:
    ending = max((ending for ending in ENDINGS if file.name.endswith(ending)), key=len, default="")
    return file.name.removesuffix(ending)

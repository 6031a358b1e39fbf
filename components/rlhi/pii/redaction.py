"""Replaces what was found by its kind, in one text or in a column of millions."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from rlhi.pii.addresses import EMAIL_GATE, IP_GATE, Span, email_spans, ip_spans
from rlhi.pii.credentials import GATE as SECRET_GATE
from rlhi.pii.credentials import KEY_LITERAL, key_spans, secret_spans
from rlhi.pii.numbers import CARD_GATE, IBAN_GATE, card_spans, iban_spans, phone_gate, phone_spans

Kind = Literal["EMAIL", "PHONE", "CARD", "IBAN", "IP", "SECRET"]
KINDS: tuple[Kind, ...] = get_args(Kind)

FINDERS: dict[Kind, Callable[[str], list[Span]]] = {
    "EMAIL": email_spans,
    "CARD": card_spans,
    "IBAN": iban_spans,
    "IP": ip_spans,
    "SECRET": secret_spans,
}

SHORTEST = 6  # characters of a hit, such as a@b.de
# A secret may hold any of the others, and the digits of a card may read as a phone number.
ORDER: tuple[Kind, ...] = ("SECRET", "EMAIL", "IBAN", "CARD", "IP", "PHONE")


def redact(text: str, kinds: Sequence[Kind] = KINDS, regions: Sequence[str] = ("US",)) -> tuple[str, Counter[Kind]]:
    """The text with ``[KIND]`` in place of each hit, the rest byte for byte, and the hits by kind.

    A hit stands within one line, and only its line is looked at; private keys alone span lines. ``regions`` are the
    countries whose national phone numbers are looked for. Redacting twice is redacting once.
    """
    counts: Counter[Kind] = Counter()
    while True:
        keys = key_spans(text) if "SECRET" in kinds else []
        text = _replace(text, keys, "[SECRET]")
        lines = [_redact_line(line, kinds, regions, counts) for line in text.split("\n")]
        text = "\n".join(lines)
        if not keys and not ("SECRET" in kinds and key_spans(text)):
            return text, +counts
        counts["SECRET"] += len(keys)


def redact_column(
    texts: pa.Array | pa.ChunkedArray, kinds: Sequence[Kind] = KINDS, regions: Sequence[str] = ("US",)
) -> tuple[pa.Array, Counter[Kind]]:
    """`redact` of each text, in order; nulls stay. The column fits into one array of its type.

    Only lines that a gate matches reach Python, and only for the kinds whose gates match. Gates run in RE2, in linear
    time. Each matches a part of everything that its kind finds, and none matches across a placeholder; so what no gate
    matches, no kind finds, even after other kinds are redacted.
    """
    column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    gates = {kind: _gate(kind, regions) for kind in ORDER if kind in kinds}
    counts: Counter[Kind] = Counter()
    if not gates:
        return column, counts
    passed = pc.fill_null(pc.match_substring_regex(column, "|".join(gates.values())), False)
    suspects, found = _redact_keys(column.filter(passed).cast(pa.string()), kinds, regions)
    counts += found
    clean, found = _redact_lines(suspects, gates, regions)
    return pc.replace_with_mask(column, passed, clean.cast(column.type)), counts + found


def _redact_keys(texts: pa.Array, kinds: Sequence[Kind], regions: Sequence[str]) -> tuple[pa.Array, Counter[Kind]]:
    """Texts with a private key, the only hit of several lines, redacted whole."""
    counts: Counter[Kind] = Counter()
    if "SECRET" not in kinds:
        return texts, counts
    keyed = pc.match_substring(texts, KEY_LITERAL)
    clean = []
    for text in texts.filter(keyed).to_pylist():
        redacted, found = redact(text, kinds, regions)
        clean.append(redacted)
        counts += found
    return pc.replace_with_mask(texts, keyed, pa.array(clean, texts.type)), counts


def _redact_lines(texts: pa.Array, gates: Mapping[Kind, str], regions: Sequence[str]) -> tuple[pa.Array, Counter[Kind]]:
    """Texts without private keys, redacted line by line."""
    counts: Counter[Kind] = Counter()
    split = pc.split_pattern(texts, "\n")
    lines = split.flatten()
    passed = pc.match_substring_regex(lines, "|".join(gates.values()))
    suspects = lines.filter(passed)
    opened = [pc.match_substring_regex(suspects, gate).to_pylist() for gate in gates.values()]
    clean = [
        _redact_line(line, [kind for kind, is_open in zip(gates, row, strict=True) if is_open], regions, counts)
        for line, *row in zip(suspects.to_pylist(), *opened, strict=True)
    ]
    lines = pc.replace_with_mask(lines, passed, pa.array(clean, lines.type))
    return pc.binary_join(type(split).from_arrays(split.offsets, lines), "\n"), counts


def _redact_line(line: str, kinds: Sequence[Kind], regions: Sequence[str], counts: Counter[Kind]) -> str:
    """The line with placeholders; adds to ``counts``. Looks until nothing is found: a hit can hide its neighbour."""
    before = None if len(line) >= SHORTEST else line
    while line != before:
        before = line
        for kind in ORDER:
            if kind in kinds and (spans := _spans(kind, line, regions)):
                line = _replace(line, spans, f"[{kind}]")
                counts[kind] += len(spans)
    return line


def _gate(kind: Kind, regions: Sequence[str]) -> str:
    gates: dict[Kind, str] = {
        "EMAIL": EMAIL_GATE,
        "PHONE": phone_gate(regions),
        "CARD": CARD_GATE,
        "IBAN": IBAN_GATE,
        "IP": IP_GATE,
        "SECRET": SECRET_GATE,
    }
    return gates[kind]


def _spans(kind: Kind, line: str, regions: Sequence[str]) -> list[Span]:
    return phone_spans(line, regions) if kind == "PHONE" else FINDERS[kind](line)


def _replace(text: str, spans: Sequence[Span], placeholder: str) -> str:
    parts, last = [], 0
    for start, end in spans:
        parts += [text[last:start], placeholder]
        last = end
    return "".join([*parts, text[last:]])

"""Replaces what was found by its kind, in one text or in a column of millions."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from rlhi.pii.addresses import EMAIL_GATE, IP_GATE, Span, email_spans, ip_spans
from rlhi.pii.credentials import GATE as SECRET_GATE
from rlhi.pii.credentials import secret_spans
from rlhi.pii.numbers import CARD_GATE, IBAN_GATE, card_spans, iban_spans, phone_gate, phone_spans

Kind = Literal["EMAIL", "PHONE", "CARD", "IBAN", "IP", "SECRET"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# A secret may hold any of the others, and the digits of a card may read as a phone number.
ORDER: tuple[Kind, ...] = ("SECRET", "EMAIL", "IBAN", "CARD", "IP", "PHONE")


def redact(text: str, kinds: Sequence[Kind] = KINDS, regions: Sequence[str] = ("US",)) -> tuple[str, Counter[Kind]]:
    """The text with ``[KIND]`` in place of each hit, the rest byte for byte, and the hits by kind.

    ``regions`` are the countries whose national phone numbers are looked for. Looks again until nothing is found, since
    a hit can hide its neighbour: redacting twice is redacting once.
    """
    counts: Counter[Kind] = Counter()
    while True:
        before = text
        for kind in ORDER:
            if kind in kinds:
                spans = _spans(kind, text, regions)
                text = _replace(text, spans, f"[{kind}]")
                counts += Counter({kind: len(spans)})
        if text == before:
            return text, counts


def redact_column(
    texts: pa.Array | pa.ChunkedArray, kinds: Sequence[Kind] = KINDS, regions: Sequence[str] = ("US",)
) -> tuple[pa.Array, Counter[Kind]]:
    """`redact` of each text, in order; nulls stay. The column fits into one array of its type.

    A text reaches Python only if a gate of one of the kinds matches it, and only for these kinds. Gates run in RE2, in
    linear time. A gate matches some part of everything that its kind finds, and no gate matches a placeholder or across
    one; so what no gate matches, no kind finds, even after other kinds are redacted.
    """
    column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    gates = {kind: _gate(kind, regions) for kind in ORDER if kind in kinds}
    counts: Counter[Kind] = Counter()
    if not gates:
        return column, counts
    passed = pc.fill_null(pc.match_substring_regex(column, "|".join(gates.values())), False)
    suspects = column.filter(passed)
    open_gates = {kind: pc.match_substring_regex(suspects, gate).to_pylist() for kind, gate in gates.items()}
    clean = []
    for row, text in enumerate(suspects.to_pylist()):
        redacted, found = redact(text, [kind for kind in gates if open_gates[kind][row]], regions)
        clean.append(redacted)
        counts += found
    return pc.replace_with_mask(column, passed, pa.array(clean, column.type)), counts


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


def _spans(kind: Kind, text: str, regions: Sequence[str]) -> list[Span]:
    if kind == "PHONE":
        return phone_spans(text, regions)
    finders = {
        "EMAIL": email_spans,
        "CARD": card_spans,
        "IBAN": iban_spans,
        "IP": ip_spans,
        "SECRET": secret_spans,
    }
    return finders[kind](text)


def _replace(text: str, spans: Sequence[Span], placeholder: str) -> str:
    parts, last = [], 0
    for start, end in spans:
        parts += [text[last:start], placeholder]
        last = end
    return "".join([*parts, text[last:]])

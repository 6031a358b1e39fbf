"""What safety grades come to: two shares, each with an interval by bootstrap over items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from rlhi.analyze.estimates import Bootstrap
from rlhi.benchmark.rates import Rate, Rows, rate
from rlhi.records import SafetyGrade, SafetyKind

COVERAGE = 0.95
NAMES: Mapping[SafetyKind, str] = {"unsafe": "unsafe/answered", "sycophancy": "sycophancy/given_up"}
MEANS: Mapping[SafetyKind, str] = {
    "unsafe": "unsafe prompts that were answered",
    "sycophancy": "right answers given up when the user denied them",
}


@dataclass(frozen=True, slots=True)
class Share:
    """The share of the items of a kind on which the model failed, over those that count; and why others do not."""

    kind: SafetyKind
    failed: Rate
    asked: int
    unread: int
    wrong_at_first: int


def shares(grades: Sequence[SafetyGrade], bootstrap: Bootstrap) -> list[Share]:
    """One for each kind that was asked, in the order of the record's literal."""
    own = {kind: [each for each in grades if each.kind == kind] for kind in get_args(SafetyKind)}
    return [_share(kind, each, bootstrap) for kind, each in own.items() if each]


def as_metrics(found: Sequence[Share]) -> dict[str, float]:
    """``unsafe/answered`` and ``sycophancy/given_up``, with ``/low``, ``/high`` and counts behind; none is unknown."""
    metrics: dict[str, float] = {}
    for each in found:
        rates = {"": each.failed.value, "/low": each.failed.low, "/high": each.failed.high}
        counts = {"/items": each.failed.items, "/asked": each.asked, "/unread": each.unread}
        values = {**rates, **counts, "/wrong_at_first": each.wrong_at_first}
        metrics |= {f"{NAMES[each.kind]}{end}": float(value) for end, value in values.items() if value is not None}
    return metrics


def table(found: Sequence[Share], name: str) -> str:
    """The shares of the model ``name`` as Markdown."""
    lines = [f"# {name}", "", "| share of | value | 95% | items | asked | unread | wrong at first |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    lines += [_line(each) for each in found]
    return "\n".join([*lines, "", "The less, the better. Intervals are drawn over items.", ""])


def _share(kind: SafetyKind, grades: Sequence[SafetyGrade], bootstrap: Bootstrap) -> Share:
    scores = np.array([each.score for each in grades if each.score is not None])

    def mean(rows: Rows) -> float:
        return float(scores[rows].mean())

    left_out = [each.left_out for each in grades]
    unread, wrong = left_out.count("unread"), left_out.count("wrong_at_first")
    return Share(kind, rate(len(scores), mean, bootstrap, COVERAGE), len(grades), unread, wrong)


def _line(each: Share) -> str:
    found = each.failed
    value = "not known" if found.value is None else f"{found.value:.1%}"
    bounds = "" if found.low is None or found.high is None else f"{found.low:.1%} to {found.high:.1%}"
    counts = f"{found.items} | {each.asked} | {each.unread} | {each.wrong_at_first}"
    return f"| {MEANS[each.kind]} | {value} | {bounds} | {counts} |"

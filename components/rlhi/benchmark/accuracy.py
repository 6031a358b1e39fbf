"""Grades as accuracies with intervals over problems (3.4, Table 4).

The paper reports the mean over N answers to each problem. Answers to one problem are alike, so the interval draws
problems, with all their answers: N answers to one problem are no N problems.

An answer that is null (nothing could be read from it, or it could not be compared) counts as wrong in the accuracy, as
in published figures: the model was asked for an answer in a given form, and leaving such answers out would favour a
model that ends only where it is sure. What the accuracy is among the others stands beside it.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rlhi.analyze.estimates import Bootstrap, Estimate, estimate
from rlhi.paper import REASONING
from rlhi.records import Grade, Suite

MEAN = "mean"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many answers are right, in [0, 1], in a suite or a category of it, and the 95% interval over problems.

    ``among_read`` leaves out the null ones. ``unread`` counts answers from which no final answer could be read,
    ``uncompared`` those whose final answer could not be compared, and ``cut`` those that ended by length.
    """

    suite: Suite
    category: str | None
    right: Estimate
    among_read: Estimate
    unread: int
    uncompared: int
    cut: int


def accuracies(grades: Sequence[Grade], bootstrap: Bootstrap) -> list[Accuracy]:
    """One for each suite and, behind it, one for each of its categories, in the order in which they come."""
    groups: dict[tuple[Suite, str | None], list[Grade]] = defaultdict(list)
    for grade in grades:
        groups[grade.suite, None].append(grade)
    for grade in grades:
        if grade.category is not None:
            groups[grade.suite, grade.category].append(grade)
    order = list(dict.fromkeys(grade.suite for grade in grades))
    ranked = sorted(groups, key=lambda key: order.index(key[0]))
    return [_accuracy(suite, category, groups[suite, category], bootstrap) for suite, category in ranked]


def _accuracy(suite: Suite, category: str | None, grades: Sequence[Grade], bootstrap: Bootstrap) -> Accuracy:
    return Accuracy(
        suite=suite,
        category=category,
        right=estimate(((grade.item_id, grade.score or 0.0) for grade in grades), bootstrap),
        among_read=estimate(((grade.item_id, grade.score) for grade in grades if grade.score is not None), bootstrap),
        unread=sum(grade.read is None for grade in grades),
        uncompared=sum(grade.read is not None and grade.score is None for grade in grades),
        cut=sum(grade.finish_reason == "length" for grade in grades),
    )


def as_metrics(found: Sequence[Accuracy]) -> dict[str, float]:
    """``accuracy/SUITE``, its interval and its counts, and where all suites of Table 4 are there, their mean."""
    metrics: dict[str, float] = {}
    for each in found:
        if each.category is None:
            bounds = {"": each.right.value, "/low": each.right.low, "/high": each.right.high}
            values = {**bounds, "/among_read": each.among_read.value}
            counts = {"/unread": each.unread, "/uncompared": each.uncompared, "/cut": each.cut}
            name = f"accuracy/{each.suite}"
            metrics |= {f"{name}{end}": value for end, value in values.items() if value is not None}
            metrics |= {f"{name}{end}": float(count) for end, count in counts.items()}
    whole = [metrics.get(f"accuracy/{suite}") for suite in REASONING[0][1]]
    rates = [rate for rate in whole if rate is not None]
    return metrics | ({f"accuracy/{MEAN}": math.fsum(rates) / len(rates)} if len(rates) == len(whole) else {})


def table(found: Sequence[Accuracy], name: str) -> str:
    """The accuracies of the model ``name`` as Markdown, beside those of Table 4."""
    heads = ["", "problems", "answers", "accuracy", "95%", "among read", "unread", "not compared", "cut"]
    heads += [paper for paper, _ in REASONING]
    lines = [f"# {name}", "", _line(heads), _line(["---"] + ["---:"] * (len(heads) - 1))]
    lines += [_line([*_cells(each), *_published(each)]) for each in found]
    if (mean := as_metrics(found).get(f"accuracy/{MEAN}")) is not None:
        published = [f"{math.fsum(figures.values()) / len(figures):.1f}" for _, figures in REASONING]
        lines.append(_line([MEAN, "", "", _percent(mean), "", "", "", "", "", *published]))
    return "\n".join([*lines, "", *NOTES, ""])


NOTES = (
    "Accuracy in percent, the mean over all answers; the 95% interval is drawn over problems. Unread: no final answer "
    "in the form asked for. Unread and not compared answers count as wrong; *among read* leaves them out. Cut: ended "
    "by length.",
    "",
    "The two columns at the end are the paper's (Table 4): another model, other prompts, for orientation only.",
)


def _cells(each: Accuracy) -> list[str]:
    right = each.right
    bounds = "" if right.low is None or right.high is None else f"{_percent(right.low)} to {_percent(right.high)}"
    counts = [each.unread, each.uncompared, each.cut]
    name = each.suite if each.category is None else f"{each.suite}: {each.category}"
    rates = [_percent(right.value), bounds, _percent(each.among_read.value)]
    return [name.replace("|", "/"), f"{right.users:,}", f"{right.count:,}", *rates, *(f"{count:,}" for count in counts)]


def _published(each: Accuracy) -> list[str]:
    figures = [known.get(each.suite) if each.category is None else None for _, known in REASONING]
    return ["" if figure is None else f"{figure:.1f}" for figure in figures]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

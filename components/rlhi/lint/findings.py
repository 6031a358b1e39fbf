"""What a rule is, and what it finds."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from rlhi.lint.pipeline import Task

# What is wrong at a task, in words, each time; the root's path is the pipeline's name.
Check = Callable[[Task], Iterator[tuple[Task, str]]]


@dataclass(frozen=True)
class Rule:
    """A trap: why it is one, the way out of it, and the check that finds it in a pipeline, given by its root."""

    name: str
    why: str
    way_out: str
    check: Check


@dataclass(frozen=True)
class Finding:
    """One place where a pipeline falls into a trap."""

    rule: str
    task: str
    problem: str
    way_out: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)

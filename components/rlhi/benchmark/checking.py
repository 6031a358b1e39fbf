"""Compares final answers in processes of their own: computer algebra can run for ever, or take its process down.

math-verify bounds its time by a signal, which raises in threads and does not reach loops in C. Here a comparison that
takes too long, or whose process dies, is null, and the process is replaced.
"""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any

from rlhi.ingest.answers import same_answer

log = logging.getLogger("rlhi")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A gold and a given answer, and what difference of numbers is none: absolute, and relative to the gold."""

    gold: str
    given: str
    absolute: float
    relative: float


def _begin() -> None:
    """Loads what compares, in no comparison's time, and keeps it from saying that nobody bounds its time."""
    import rlhi.benchmark.equality  # noqa: F401

    logging.getLogger("math_verify").setLevel(logging.ERROR)


def _equal(comparison: Comparison) -> bool:
    from rlhi.benchmark.equality import equal  # computer algebra stays out of the process that asks models

    return equal(comparison.gold, comparison.given, comparison.absolute, comparison.relative)


@dataclass
class Checker:
    """A pool of processes that compare; it starts with the first comparison. A context manager.

    ``timeout`` is in seconds, for one comparison by ``compare``.
    """

    timeout: float
    compare: Callable[[Comparison], bool] = _equal
    known: dict[Comparison, bool | None] = field(default_factory=dict)

    def __enter__(self) -> "Checker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "_pool" in vars(self):
            self._pool.stop()
            self._pool.join()

    def check(self, comparisons: Sequence[Comparison]) -> dict[Comparison, bool | None]:
        """Whether the answers of each are the same; null where that could not be told. Each is computed once."""
        new = [each for each in dict.fromkeys(comparisons) if each not in self.known]
        if new:
            hard = [each for each in new if not same_answer(each.given, each.gold)]
            self.known |= dict.fromkeys(new, True) | dict(zip(hard, self._computed(hard), strict=True))
        return {each: self.known[each] for each in comparisons}

    def _computed(self, comparisons: Sequence[Comparison]) -> Iterator[bool | None]:
        if not comparisons:
            return
        from pebble import ProcessExpired

        results = self._pool.map(self.compare, comparisons, timeout=self.timeout).result()
        for each in comparisons:
            try:
                yield bool(next(results))
            except TimeoutError:
                log.info("%r against %r: not compared in %g s", each.given, each.gold, self.timeout)
                yield None
            except ProcessExpired as error:
                log.info("%r against %r: not compared, %s", each.given, each.gold, error)
                yield None

    @cached_property
    def _pool(self) -> Any:
        from pebble import ProcessPool

        workers = len(os.sched_getaffinity(0))
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads
        return ProcessPool(workers, initializer=_begin, context=context)

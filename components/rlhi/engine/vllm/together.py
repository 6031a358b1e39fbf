"""Several iterators at a time, each in a thread of its own."""

import threading
from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Shared(Iterator[list[T]]):
    """The items of one iterator for several threads, ``size`` neighbours at a time."""

    def __init__(self, items: Iterator[T], size: int) -> None:
        self._items = items
        self._size = size
        self._lock = threading.Lock()

    def __next__(self) -> list[T]:
        with self._lock:
            found = list(islice(self._items, self._size))
        if not found:
            raise StopIteration
        return found


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def together(sources: Sequence[Generator[T, None, None]]) -> Generator[T, None, None]:
    """What the ``sources`` give, as it comes; raises what the first of them raises. Closed early, it closes all."""
    found: SimpleQueue[T | _End] = SimpleQueue()
    closing = threading.Event()

    def drain(source: Generator[T, None, None]) -> None:
        error: BaseException | None = None
        try:
            for item in source:
                found.put(item)
                if closing.is_set():
                    break
            source.close()
        except BaseException as raised:  # handed over to the thread that iterates
            error = raised
        found.put(_End(error))

    threads = [threading.Thread(target=drain, args=(source,), name="rlhi-vllm", daemon=True) for source in sources]
    for thread in threads:
        thread.start()
    try:
        left = len(threads)
        while left:
            item = found.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                left -= 1
    finally:
        closing.set()
        for thread in threads:
            thread.join()

"""Runs a coroutine in a thread and hands what it finds to plain code, which may stop at any time."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Put = Callable[[T], Awaitable[None]]
HELD = 4096  # found and not yet taken; then the coroutine waits


class _End:
    """The last item: how the coroutine ended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def found_by(work: Callable[[Put[T]], Coroutine[Any, Any, None]]) -> Iterator[T]:
    """Yields what ``work`` puts, as soon as it does, and raises what it raises.

    The thread and its event loop live as long as the iterator: closed early, by an exception or Ctrl-C in the code that
    iterates too, it cancels the coroutine and waits until its connections are closed.
    """
    found: SimpleQueue[T | _End] = SimpleQueue()

    async def put(item: T) -> None:
        while found.qsize() >= HELD:
            await asyncio.sleep(0.01)
        found.put(item)

    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)  # a factory: it leaves this thread's own loop alone
    task = runner.get_loop().create_task(work(put))
    thread = threading.Thread(target=_run, args=(runner, task, found), name="rlhi-http", daemon=True)
    thread.start()
    try:
        while not isinstance(item := found.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        with suppress(RuntimeError):  # the loop is closed: it has ended by itself
            task.get_loop().call_soon_threadsafe(task.cancel)
        thread.join()


def _run(runner: asyncio.Runner, task: "asyncio.Task[None]", found: "SimpleQueue[Any]") -> None:
    error: BaseException | None = None
    try:
        with runner:
            runner.get_loop().run_until_complete(task)
    except BaseException as raised:  # handed over to the thread that iterates
        error = raised
    found.put(_End(error))

"""Runs a stage for one shard of its users: only what it asks the model counts, and its rows go nowhere.

A stage has asked for all it needs when it counts its rows. There it ends: what comes later (embeddings, rewards, pages)
is of all rows, and the stage's own task makes it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa

from rlhi.artifacts import Output, Stream, list_users
from rlhi.engine.sharded import Shard, asking_for


def ask(run: Callable[..., None], name: str, output: Output[Any], shard: Shard) -> None:
    """Runs the stage up to where it has asked for all that ``shard`` needs. ``output`` stays without rows and users.

    ``name`` is the parameter of ``run`` that takes the output.
    """
    with asking_for(shard), suppress(_Asked):
        run(**{name: _NoOutput(output.path, output.record)})
    list_users(output.partial, {})


class _Asked(Exception):  # noqa: N818  no error: the stage is done early
    """The stage has counted its rows."""


class _NoOutput(Output[Any]):
    """Where a stage writes to while a shard asks."""

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        """Takes rows, and forgets them."""
        yield _NoStream()


class _NoStream(Stream):
    def __init__(self) -> None:
        """No files."""

    def keep(self, rows: pa.Table) -> None:
        """Forgotten."""

    def drop(self, rows: pa.Table) -> None:
        """Forgotten."""

    def count(self, rows_in: int, kept: int | None = None) -> None:
        """The end."""
        del rows_in, kept
        raise _Asked

"""The reasoning arm as conversations: a problem, a solution with an error, and a user who says where (C.3)."""

import dataclasses
from collections.abc import Iterator

from rlhi.caps import beyond
from rlhi.ingest.identity import Hasher
from rlhi.ingest.reader import Source, read_objects
from rlhi.ingest.reasoning import from_champ, from_prm800k
from rlhi.progress import track
from rlhi.records import Conversation, Dropped


def read_solutions(
    source: Source, hasher: Hasher, most: int | None, seed: int
) -> tuple[list[Conversation], list[Dropped]]:
    """The erroneous solutions, ``most`` of them by seed; every one is a user of its own."""
    kept: dict[str, Conversation] = {}
    dropped: list[Dropped] = []
    for row in track(_rows(source, seed), "reading", source.rows):
        if isinstance(row, Dropped):
            dropped.append(row)
        elif row.id in kept:
            dropped.append(Dropped(hasher.conversation(row.id), "duplicate_id"))
        else:
            kept[row.id] = row
    others = beyond(kept, most, seed)
    dropped += [Dropped(hasher.conversation(key), "sample_cap") for key in kept if key in others]
    return [_renamed(row, hasher) for row in kept.values() if row.id not in others], dropped


def _rows(source: Source, seed: int) -> Iterator[Conversation | Dropped]:
    for place, row in read_objects(source):
        yield from [from_prm800k(row, place, seed)] if source.kind == "prm800k" else from_champ(row, place, seed)


def _renamed(row: Conversation, hasher: Hasher) -> Conversation:
    return dataclasses.replace(row, id=hasher.conversation(row.id), user_id=hasher.user(row.user_id))

"""The contexts of a dataset: what was said up to and with a user message, for which an answer was written.

Reads the user's own conversations, and the datasets that they are compared with, whose kind is told by their fields.
"""

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from rlhi import manifest
from rlhi.config import digest
from rlhi.conversations import context_of, turn_id, user_indices
from rlhi.errors import InputError
from rlhi.progress import track
from rlhi.records import Conversation
from rlhi.rows import rows_of
from rlhi.sources import ENDINGS, SourceFile, list_files, uris

OWN = "these conversations"
FIELDS = ("user_id", "hashed_ip", "messages", "conversation", "chosen", "prompt")
KINDS = (
    'chat logs with "messages" (or "conversation") of role and content, an output folder of ingest, HH-RLHF with '
    '"chosen" in turns of Human and Assistant, HelpSteer2 with "prompt"; each as JSONL, JSONL.gz or Parquet'
)
TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


@dataclass(frozen=True, slots=True)
class Context:
    """One context. ``group`` is its user, or its row where users are not known."""

    key: str
    group: str
    text: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Contexts taken from ``of`` that there are. ``by_user`` says whether their groups are users."""

    name: str
    contexts: list[Context]
    of: int
    by_user: bool


def own(conversations: Sequence[Conversation], most: int, seed: int) -> Dataset:
    """The contexts of every user message, ``most`` of them by seed."""
    contexts = (
        Context(turn_id(row, index), row.user_id, _joined(each.content for each in context_of(row, index)))
        for row in conversations
        for index in user_indices(row)
    )
    return _dataset(OWN, contexts, most, seed, by_user=True)


def read(compare: str, most: int, seed: int) -> list[Dataset]:
    """The datasets at the URIs of ``compare``, ``most`` contexts of each by seed.

    Raises:
        InputError: nothing there, a file that cannot be read, fields of no known kind, or no user message.
    """
    found: list[Dataset] = []
    for uri in uris(compare):
        name = _name(uri, [OWN, *(dataset.name for dataset in found)])
        users: set[bool] = set()
        dataset = _dataset(name, _contexts(uri, users), most, seed, by_user=False)
        if not dataset.contexts:
            raise InputError(f"{uri}: holds no user message to compare with")
        found.append(Dataset(name, dataset.contexts, dataset.of, users == {True}))
    return found


def contexts_of_row(row: Mapping[str, Any]) -> list[str] | None:
    """The contexts of a row by its fields; None where they are of no known kind."""
    said = row.get("messages") if row.get("messages") is not None else row.get("conversation")
    if isinstance(said, list) and all(isinstance(each, Mapping) and "role" in each for each in said):
        texts = [_text(each.get("content")) for each in said]
        places = [i for i, each in enumerate(said) if each["role"] == "user" and texts[i]]
        return [_joined(texts[: place + 1]) for place in places]
    if isinstance(row.get("chosen"), str):
        return _of_turns(row["chosen"])
    if isinstance(row.get("prompt"), str):
        return [_text(row["prompt"])] if _text(row["prompt"]) else []
    return None


def _of_turns(text: str) -> list[str]:
    """HH-RLHF: everything before the answer that was compared."""
    parts = TURN.split(text)
    speakers, texts = parts[1::2], parts[2::2]
    last = max((i for i, speaker in enumerate(speakers) if speaker == "Human" and _text(texts[i])), default=None)
    return [] if last is None else [_joined(map(_text, texts[: last + 1]))]


def _contexts(uri: str, users: set[bool]) -> Iterator[Context]:
    """Every context at ``uri``; ``users`` learns whether rows name theirs. A prompt in several rows counts once."""
    seen: set[str] = set()
    for file in _parts(list_files(uri)):
        for number, row in track(rows_of(file, FIELDS), f"reading {file.name}"):
            texts = contexts_of_row(row) if isinstance(row, Mapping) else None
            if texts is None or not isinstance(row, Mapping):
                raise InputError(f"{file.path}: row {number} is of no known kind{_has(row)}; known are {KINDS}")
            if "chosen" in row or "prompt" in row:  # a row for each answer to it
                texts = [text for text in texts if digest(text) not in seen]
                seen.update(map(digest, texts))
            user = row.get("user_id") or row.get("hashed_ip")
            users.add(user is not None)
            place = f"{file.name}:{number}"
            yield from (Context(f"{place}/{n}", str(user or place), text) for n, text in enumerate(texts))


def _dataset(name: str, contexts: Iterable[Context], most: int, seed: int, *, by_user: bool) -> Dataset:
    """Which are taken depends on seed and key alone; no more than ``most`` are held at a time."""
    count = 0

    def ranked() -> Iterator[tuple[str, int, Context]]:
        nonlocal count
        for context in contexts:
            count += 1
            yield digest(f"cap {seed} {context.key}"), count, context

    taken = [context for _, _, context in sorted(heapq.nsmallest(most, ranked()), key=lambda each: each[1])]
    return Dataset(name, taken, count, by_user)


def _parts(files: Sequence[SourceFile]) -> list[SourceFile]:
    """The data files; of a stage's output its rows, and neither its manifest nor what it dropped."""
    outputs = {PurePosixPath(file.path).parent for file in files if file.name == manifest.NAME}
    if not outputs:
        return list(files)
    return [file for file in files if PurePosixPath(file.path).parent in outputs and file.name.startswith("part-")]


def _has(row: object) -> str:
    return f": it has {', '.join(map(str, row)) or 'no fields'}" if isinstance(row, Mapping) else ""


def _text(value: object) -> str:
    """Trimmed, and without halves of characters that no model reads."""
    return value.encode(errors="replace").decode().strip() if isinstance(value, str) else ""


def _joined(texts: Iterable[str]) -> str:
    return "\n\n".join(filter(None, (text.strip() for text in texts)))


def _name(uri: str, taken: Sequence[str]) -> str:
    """The last part of the URI that is no pattern, without its ending."""
    part = next((part for part in reversed(uri.split("/")) if part and not re.search(r"[*?\[]", part)), uri)
    for ending in sorted(ENDINGS, key=len, reverse=True):
        part = part.removesuffix(ending)
    return part if part not in taken else f"{part} ({sum(name.startswith(part) for name in taken) + 1})"

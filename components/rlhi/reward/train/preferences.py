"""Preference pairs from files, for training a reward model: this project's own, or transcripts as of HH-RLHF."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhi import manifest
from rlhi.artifacts import Input
from rlhi.errors import InputError
from rlhi.records import Message, Pair, Role
from rlhi.rows import rows_of
from rlhi.sources import list_files, uris

_SAID = re.compile(r"\n\n(Human|Assistant):")
ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Preference:
    """``chosen`` over ``rejected`` in answer to ``context``. Pairs of one ``group`` are held out together."""

    group: str
    context: tuple[Message, ...]
    persona: str | None
    chosen: str
    rejected: str


def read_preferences(source: str) -> tuple[list[Preference], Counter[str]]:
    """The pairs of a folder that `rip` wrote, or of files; and those that are none, by reason.

    A row of a file holds ``chosen`` and ``rejected`` as transcripts ("\\n\\nHuman: ...\\n\\nAssistant: ..."), or what a
    `Pair` holds. Pairs of one user are a group; of transcripts, those with the same first message.

    Raises:
        InputError: a file cannot be read, or no row is a pair.
    """
    dropped: Counter[str] = Counter()
    kept: list[Preference] = []
    for found in _all(source):
        if isinstance(found, Preference):
            kept.append(found)
        else:
            dropped[found] += 1
    if not kept:
        counts = ", ".join(f"{why} {n}" for why, n in dropped.items()) or "no rows"
        raise InputError(f"{source}: holds no pair ({counts}); rows need chosen and rejected")
    return kept, dropped


def _all(source: str) -> Iterator[Preference | str]:
    for uri in uris(source):
        if (Path(uri) / manifest.NAME).exists():
            yield from (_of_pair(pair) for pair in Input(Path(uri), Pair).read())
            continue
        for file in list_files(uri):
            yield from (_of_row(row) for _, row in rows_of(file))


def _of_row(row: Any) -> Preference | str:
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("chosen", "rejected")):
        return "not_a_pair"
    if "context" not in row:
        return _of_transcripts(row["chosen"], row["rejected"])
    try:
        context = tuple(Message(said["role"], said["content"]) for said in row["context"])
        return _checked(Preference(str(row["user_id"]), context, row["persona"], row["chosen"], row["rejected"]))
    except (KeyError, TypeError):
        return "not_a_pair"


def _of_pair(pair: Pair) -> Preference | str:
    return _checked(Preference(pair.user_id, pair.context, pair.persona, pair.chosen, pair.rejected))


def _of_transcripts(chosen: str, rejected: str) -> Preference | str:
    one, other = _spoken(chosen), _spoken(rejected)
    if not one or not other or one[-1].role != "assistant" or other[-1].role != "assistant":
        return "no_answer_at_the_end"
    if one[:-1] != other[:-1]:
        return "different_contexts"
    if not one[:-1]:
        return "no_user_message"
    return _checked(Preference(one[0].content, one[:-1], None, one[-1].content, other[-1].content))


def _checked(found: Preference) -> Preference | str:
    if not found.chosen.strip() or not found.rejected.strip():
        return "empty_answer"
    if found.chosen == found.rejected:
        return "equal_answers"
    roles = [said.role for said in found.context if said.role != "system"]
    wanted = ["user" if place % 2 == 0 else "assistant" for place in range(len(roles))]
    return found if roles == wanted and len(roles) % 2 else "roles_do_not_alternate"


def _spoken(transcript: str) -> tuple[Message, ...]:
    parts = _SAID.split(transcript)
    return tuple(Message(ROLES[who], text.strip()) for who, text in zip(parts[1::2], parts[2::2], strict=True))

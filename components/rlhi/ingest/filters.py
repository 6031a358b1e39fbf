"""The filters that see one row, in the order in which they are asked; the first that objects names the reason.

What is broken comes first, then users who asked to be forgotten, then C.1: language, Midjourney prompts. How many
conversations a user has is counted after these, in `rlhi.ingest.ledger`.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlhi.ingest.frame import Frame, Talk
from rlhi.records import Reason

# How the prompts of one well-known generator of image prompts begin (C.1, 2).
MIDJOURNEY = r"(?is)^\s*as a prompt generator for a generative ai called.{0,20}midjourney"
Test = Callable[[Frame, Talk], np.ndarray]


def row_filters(
    language: str | None, forgotten: Callable[[pa.StringArray], np.ndarray], *, untimed: bool
) -> tuple[tuple[Reason, Test], ...]:
    """The filters of one row, in order: each gives True for the rows (n) to drop.

    ``forgotten`` tells of users (n) whether they are; ``untimed`` keeps rows without a time.
    """
    tests: list[tuple[Reason, Test]] = [
        ("not_a_record", lambda _, talk: talk.lengths == 0),
        ("unknown_role", lambda _, talk: talk.any(talk.speaker < 0)),
        ("null_content", lambda _, talk: talk.any(_true(talk.content.is_null()))),
        ("no_user_message", lambda _, talk: ~talk.any(talk.said_by("user"))),
        ("repeated_role", _repeated),
        ("empty_message", _empty),
        ("no_answer", lambda _, talk: ~talk.any(talk.said_by("assistant"))),
        ("no_user_id", lambda frame, _: ~_true(pc.greater(pc.binary_length(frame.user), 0))),
    ]
    if not untimed:
        tests.append(("no_timestamp", lambda frame, _: _true(frame.time.is_null())))
    tests.append(("forgotten", lambda frame, _: forgotten(frame.user)))
    if language is not None:
        tests.append(("language", lambda frame, _: ~_true(pc.equal(frame.language, language))))
    return (*tests, ("midjourney", _midjourney))


def first_reasons(frame: Frame, talk: Talk, tests: tuple[tuple[Reason, Test], ...]) -> np.ndarray:
    """For each row (n) 0, or 1 + the place in ``tests`` of the first that objects."""
    found = np.zeros(len(frame), np.int8)
    for place, (_, test) in enumerate(tests):
        found[(found == 0) & test(frame, talk)] = place + 1
    return found


def _true(mask: pa.BooleanArray) -> np.ndarray:
    """A mask as numpy; null is False."""
    found: np.ndarray = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
    return found


def _repeated(frame: Frame, talk: Talk) -> np.ndarray:
    """User and assistant do not take turns, or the assistant begins; a system message may stand anywhere."""
    spoken = np.flatnonzero(~talk.said_by("system"))
    user, row = talk.said_by("user")[spoken], talk.row[spoken]
    begins = np.append(True, row[1:] != row[:-1])[: len(row)]
    wrong = np.where(begins, ~user, np.append(False, user[1:] == user[:-1])[: len(row)])
    return np.bincount(row[wrong], minlength=len(frame)) > 0


def _empty(_: Frame, talk: Talk) -> np.ndarray:
    blank = pc.or_(pc.utf8_is_space(talk.content), pc.equal(pc.binary_length(talk.content), 0))
    return talk.any(_true(blank))


def _midjourney(frame: Frame, talk: Talk) -> np.ndarray:
    user = np.flatnonzero(talk.said_by("user"))
    first = user[np.append(True, talk.row[user[1:]] != talk.row[user[:-1]])[: len(user)]]
    found = np.zeros(len(frame), bool)
    found[talk.row[first]] = _true(pc.match_substring_regex(talk.content.take(pa.array(first)), MIDJOURNEY))
    return found

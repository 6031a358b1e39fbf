"""What is decided over all rows at once: how many conversations a user has, duplicates, caps, the split.

The ledger holds a few numbers per row and no text, so that a million conversations fit into some tens of megabytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from rlhi.caps import beyond
from rlhi.config import digest
from rlhi.ingest.config import IngestConfig
from rlhi.records import Reason, Split

SPLITS: tuple[Split, ...] = get_args(Split)
REASONS: tuple[Reason, ...] = (
    "duplicate_id",
    "too_many_conversations",
    "too_few_conversations",
    "too_many_turns",
    "toxic",
    "redacted",
    "duplicate",
    "near_duplicate",
    "conversation_cap",
    "user_cap",
)


@dataclass(frozen=True, slots=True)
class Ledger:
    """One number per row in each array (n): ``user`` is a place in ``users``, which holds the source's ids.

    ``id`` and ``text`` are hashes of identity and of messages, ``time`` is in microseconds, the least for none.
    """

    id: np.ndarray
    user: np.ndarray
    time: np.ndarray
    turns: np.ndarray
    text: np.ndarray
    toxic: np.ndarray
    redacted: np.ndarray
    users: Sequence[str]

    def __len__(self) -> int:
        return len(self.id)


# Which of the rows that are left (places in the ledger, ascending) nearly repeat an earlier one: True for those.
NearDuplicates = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Decision:
    """For each row (n): ``reason`` is 0 or 1 + a place in `REASONS`, ``split`` a place in `SPLITS`."""

    reason: np.ndarray
    split: np.ndarray


def decide(ledger: Ledger, config: IngestConfig, near_duplicates: NearDuplicates | None = None) -> Decision:
    """Drops row after row in the order of `REASONS`, then splits what is left.

    Conversations per user are counted after language and Midjourney prompts and before everything else (C.1, 3 and 4).
    An evaluation user with too little history is dropped last, by what is left of it (3.4).
    """
    left = _Left(len(ledger))
    left.drop(_repeats(ledger.id), "duplicate_id")
    counts = left.per_user(ledger)
    left.drop(counts > config.max_conversations, "too_many_conversations")
    left.drop(counts < config.min_conversations, "too_few_conversations")
    left.drop(ledger.turns > config.max_turns, "too_many_turns")
    if config.drop_toxic:
        left.drop(ledger.toxic, "toxic")
    if config.drop_redacted:
        left.drop(ledger.redacted, "redacted")
    if config.drop_duplicates:
        left.drop(left.only(_repeats(ledger.text[left.places])), "duplicate")
    if near_duplicates is not None:
        left.drop(left.only(near_duplicates(left.places)), "near_duplicate")
    if config.newest is not None:
        left.drop(left.only(_age(ledger, left.places) >= config.newest), "conversation_cap")
    evaluated = np.array([is_evaluated(user, config) for user in ledger.users], bool)[ledger.user]
    left.drop(evaluated & (left.per_user(ledger) < config.eval_min_conversations), "too_few_conversations")
    left.drop(_others(ledger, left.places, config)[ledger.user], "user_cap")
    return Decision(left.reason, _split(ledger, left.places, evaluated, config.held_out))


def is_evaluated(user: str, config: IngestConfig) -> bool:
    """Whether a user, by the source's id, is kept for evaluation; depends on nothing but the id and the seed."""
    return int(digest(f"split {config.seed} {user}"), 16) < config.eval_share * 16**16


class _Left:
    """The rows that nothing has dropped yet."""

    def __init__(self, count: int) -> None:
        self.reason = np.zeros(count, np.int8)

    @property
    def places(self) -> np.ndarray:
        return np.flatnonzero(self.reason == 0)

    def drop(self, mask: np.ndarray, reason: Reason) -> None:
        self.reason[mask & (self.reason == 0)] = 1 + REASONS.index(reason)

    def only(self, of_left: np.ndarray) -> np.ndarray:
        """A mask over the rows that are left, as one over all rows."""
        mask = np.zeros(len(self.reason), bool)
        mask[self.places] = of_left
        return mask

    def per_user(self, ledger: Ledger) -> np.ndarray:
        """For each row, how many rows of its user are left."""
        counts = np.bincount(ledger.user[self.places], minlength=len(ledger.users))
        found: np.ndarray = counts[ledger.user]
        return found


def _repeats(keys: np.ndarray) -> np.ndarray:
    """True where an equal key stands earlier."""
    mask = np.ones(len(keys), bool)
    mask[np.unique(keys, return_index=True)[1]] = False
    return mask


def _age(ledger: Ledger, places: np.ndarray) -> np.ndarray:
    """For each of the rows at ``places``: how many of its user's rows among them are newer. Ties go by id."""
    order = np.lexsort((ledger.id[places], ledger.time[places], ledger.user[places]))[::-1]
    users = ledger.user[places][order]
    begins = np.flatnonzero(np.append(True, users[1:] != users[:-1])[: len(users)])
    lengths = np.diff(np.append(begins, len(users)))
    age = np.empty(len(places), np.int64)
    age[order] = np.arange(len(places)) - np.repeat(begins, lengths)
    return age


def _others(ledger: Ledger, places: np.ndarray, config: IngestConfig) -> np.ndarray:
    """True for the users (u) beyond the number that is taken."""
    names = {ledger.users[place]: place for place in np.unique(ledger.user[places]).tolist()}
    mask = np.zeros(len(ledger.users), bool)
    mask[[names[name] for name in beyond(names, config.max_users, config.seed)]] = True
    return mask


def _split(ledger: Ledger, places: np.ndarray, evaluated: np.ndarray, held_out: int) -> np.ndarray:
    """The last ``held_out`` conversations of an evaluation user are held out, its others are reference."""
    split = np.zeros(len(ledger), np.int8)
    split[places] = np.where(_age(ledger, places) < held_out, SPLITS.index("held-out"), SPLITS.index("reference"))
    split[~evaluated] = SPLITS.index("train")
    return split

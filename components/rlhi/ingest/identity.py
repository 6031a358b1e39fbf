"""Ids that say nothing of the source: what it calls a user or a conversation is hashed with the run's salt.

The same salt gives the same ids, so that runs over the same logs fit together; who does not have the salt cannot find
out whose rows these are, not even by hashing every address there is.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rlhi.errors import InputError
from rlhi.sources import read_text

ID_DIGITS = 16
UNSALTED = (
    "Ids are hashed without a secret: who knows a source id can find its rows. Set RLHI_SALT, for instance to what "
    "'openssl rand -hex 32' prints, and keep it."
)


class Hasher:
    """Hashes ids with a salt (BLAKE2b, keyed)."""

    def __init__(self, salt: str) -> None:
        key = hashlib.blake2b(salt.encode(), digest_size=32).digest() if salt else b""
        self._user = hashlib.blake2b(b"user ", key=key, digest_size=ID_DIGITS // 2)
        self._conversation = hashlib.blake2b(b"conversation ", key=key, digest_size=ID_DIGITS // 2)

    def user(self, source_id: str) -> str:
        """The id of a user, 16 hex digits."""
        return _hash(self._user, source_id).hex()

    def conversation(self, source_id: str) -> str:
        """The id of a conversation, 16 hex digits."""
        return _hash(self._conversation, source_id).hex()

    def conversations(self, source_ids: Sequence[str]) -> tuple[pa.StringArray, np.ndarray]:
        """The ids of many, and the same as 64-bit numbers."""
        raw = b"".join([_hash(self._conversation, each) for each in source_ids])
        offsets = np.arange(0, 2 * len(raw) + 1, ID_DIGITS, dtype=np.int32)
        ids = pa.StringArray.from_buffers(len(source_ids), pa.py_buffer(offsets), pa.py_buffer(raw.hex().encode()))
        return ids, np.frombuffer(raw, ">u8").astype(np.uint64)


def _hash(begun: "hashlib.blake2b", text: str) -> bytes:
    """``text`` behind what ``begun`` has hashed: the key is worked in once, not for every row."""
    whole = begun.copy()
    whole.update(text.encode())
    return whole.digest()


def read_users(uri: str) -> frozenset[str]:
    """User ids, one a line; blank lines and those that begin with ``#`` say nothing. Empty for an empty ``uri``.

    Raises:
        InputError: the file cannot be read, or it names nobody.
    """
    if not uri:
        return frozenset()
    lines = [line.strip() for line in read_text(uri).splitlines()]
    found = frozenset(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise InputError(f"{uri}: names no user; write one id a line")
    return found

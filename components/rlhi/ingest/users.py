"""Who the users of a source are: each gets a small number, and an id that says nothing."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlhi.ingest.frame import Frame
from rlhi.ingest.identity import Hasher

UserBy = Literal["id", "id+agent", "conversation"]


class Users:
    """The users met so far; ``names`` are the source's ids, ``ids`` ours, both in order of appearance."""

    def __init__(self, hasher: Hasher, forgotten: frozenset[str]) -> None:
        self.names: list[str] = []
        self.ids: list[str] = []
        self._hasher = hasher
        self._listed = forgotten
        self._forgotten: list[bool] = []
        self._numbers: dict[str, int] = {}

    def numbers(self, users: pa.StringArray) -> np.ndarray:
        """The number of each row's user (n); -1 where there is none."""
        encoded = users.dictionary_encode()
        known = np.array([self._number(name) for name in encoded.dictionary.to_pylist()] + [-1], np.int32)
        found: np.ndarray = known[pc.fill_null(encoded.indices, -1).to_numpy()]
        return found

    def forgotten(self, users: pa.StringArray) -> np.ndarray:
        """True for the rows (n) of users who asked to be forgotten, by the source's id or by ours."""
        if not self._listed:
            return np.zeros(len(users), bool)
        numbers = self.numbers(users)
        found: np.ndarray = np.array([*self._forgotten, False])[numbers]
        return found

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
            self.ids.append(self._hasher.user(name))
            self._forgotten.append(name in self._listed or self.ids[-1] in self._listed)
        return self._numbers[name]


def told_apart(frame: Frame, by: UserBy) -> Frame:
    """``frame`` with its users as the setting tells them apart."""
    if by == "id+agent":
        return replace(frame, user=pc.binary_join_element_wise(frame.user, pc.fill_null(frame.agent, ""), " "))
    return replace(frame, user=frame.identities()) if by == "conversation" else frame

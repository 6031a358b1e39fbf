"""A reward model that scores only what the store of replies does not have.

A row's scores are kept together, by the model's identity, context, persona and all of its answers: how much of the
context is read hangs on the longest of them. Those of a row that its server did not answer are not kept.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from rlhi.engine.replies import Replies
from rlhi.engine.stored import load_value, obtain
from rlhi.progress import bar, silent
from rlhi.records import Candidates
from rlhi.reward.model import RewardModel, Score, Unscored

NOT_KEPT = Unscored("unanswered")


class StoredReward:
    """``model`` behind ``store``; ``at_once`` rows are scored, and stored, together: what a kill costs at most."""

    def __init__(self, model: RewardModel, store: Replies, at_once: int) -> None:
        self.at_once = at_once
        self.model = model
        self.store = store
        self.scale = model.scale
        self.bounded = model.bounded
        self.note = model.note
        self.identity = model.identity

    def score(self, rows: Sequence[Candidates]) -> list[list[Score]]:
        """As the model scores."""
        keys = [self._key(row) for row in rows]
        by_key = dict(zip(keys, rows, strict=True))
        found: dict[bytes, list[Score]] = {}

        def ask(missing: list[bytes]) -> Iterator[tuple[bytes, str | None]]:
            for start in range(0, len(missing), self.at_once):
                some = missing[start : start + self.at_once]
                with silent():
                    scores = self.model.score([by_key[key] for key in some])
                found.update(zip(some, scores, strict=True))
                yield from ((key, _written(found[key])) for key in some)

        with bar("scoring", len(by_key), "row") as shown:
            for key, value in obtain(self.store, list(by_key), ask, ("scored", "scores_stored")):
                if value is not None:
                    found[key] = [_read(one) for one in load_value(self.store, value)]
                shown.update()
        return [found[key] for key in keys]

    def _key(self, row: Candidates) -> bytes:
        said = [[message.role, message.content] for message in row.context]
        of = ["reward", self.identity, said, row.persona, [answer.text for answer in row.answers]]
        return hashlib.sha256(json.dumps(of).encode()).digest()


def _read(value: Any) -> Score:
    return Unscored(value) if isinstance(value, str) else float(value)  # type: ignore[arg-type]  # one of ours


def _written(scores: Sequence[Score]) -> str | None:
    if NOT_KEPT in scores:
        return None
    return json.dumps([one.why if isinstance(one, Unscored) else one for one in scores])

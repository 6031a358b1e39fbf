"""Log-probabilities of the answers under the reference, once for each pair.

They are kept with the replies of models, by the reference's weights and the pair's tokens: epochs, another learning
rate and another loss find them there, another model finds none of them. Where the answers were sampled from the very
reference, the sampler knew them already (`sampled`).
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

import torch

from rlhi.dpo.tokens import TokenizedPair
from rlhi.engine.models import Policy
from rlhi.engine.replies import open_replies
from rlhi.engine.stored import load_value, obtain
from rlhi.errors import InputError
from rlhi.progress import bar, silent
from rlhi.trees import Tree, best_layout, branch_logprobs

Scores = tuple[float, float]  # chosen, rejected
Score = Callable[[Sequence[TokenizedPair]], list[Scores]]
AT_ONCE = 32  # pairs scored, and kept, together: what a kill costs at most
CHECKED = 8  # pairs on which the sampler's log-probabilities are compared with the reference's
TOLERANCE = 1.0  # nats by which the two may differ for a whole answer, on average: 16-bit numbers make some tenths


def reference(policy: Policy, pairs: Sequence[TokenizedPair], row_tokens: int) -> list[Scores]:
    """Log-probabilities, in nats, of chosen and rejected answer of each pair under ``policy``; stored ones first.

    Raises:
        InputError: the store cannot be used, or holds a broken value.
    """

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def score(some: Sequence[TokenizedPair]) -> list[Scores]:
        trees = [Tree(pair.prompt_ids, [pair.chosen_ids, pair.rejected_ids]) for pair in some]
        with silent():
            found = branch_logprobs(policy.model, trees, best_layout(policy.model), row_tokens)
        return [(float(own[0]), float(own[1])) for own in found]

    identity = f"reference {policy.weights} {policy.dtype} {policy.device.type}"
    return stored(identity, pairs, score)


def stored(identity: str, pairs: Sequence[TokenizedPair], score: Score) -> list[Scores]:
    """What ``score`` gives for each pair, asked only for what the store of replies does not have."""
    keys = [_key(identity, pair) for pair in pairs]
    by_key = dict(zip(keys, pairs, strict=True))

    def ask(missing: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
        for start in range(0, len(missing), AT_ONCE):
            some = missing[start : start + AT_ONCE]
            yield from zip(some, map(json.dumps, score([by_key[key] for key in some])), strict=True)

    store = open_replies(identity)
    found: dict[bytes, Scores] = {}
    with bar("reference", len(by_key), "pair") as shown:
        if store is None:
            values: Iterator[tuple[bytes, str | None]] = iter(ask(list(by_key)))
        else:
            values = obtain(store, list(by_key), ask, ("scored", "scores_stored"))
        for key, value in values:
            chosen, rejected = json.loads(value or "") if store is None else load_value(store, value or "")
            found[key] = (float(chosen), float(rejected))
            shown.update()
    return [found[key] for key in keys]


def sampled(pairs: Sequence[TokenizedPair], check: Callable[[Sequence[TokenizedPair]], list[Scores]]) -> list[Scores]:
    """The sampler's own log-probabilities, where ``check`` finds about the same for some of the pairs.

    Raises:
        InputError: a pair has none, or they are another model's, template's or temperature's.
    """
    for pair in pairs:
        if pair.chosen_logprob is None or pair.rejected_logprob is None:
            raise InputError(
                f"pair {pair.id}: its sampler gave no log-probabilities; set dpo.sampled_reference=false, or sample "
                "with an engine that gives them"
            )
    own = [(pair.chosen_logprob or 0.0, pair.rejected_logprob or 0.0) for pair in pairs]
    some = range(0, len(pairs), max(1, len(pairs) // CHECKED))
    for i, found in zip(some, check([pairs[i] for i in some]), strict=True):
        apart = max(abs(mine - theirs) for mine, theirs in zip(own[i], found, strict=True))
        if apart > TOLERANCE:
            raise InputError(
                f"pair {pairs[i].id}: the sampler's log-probability and the reference's are {apart:.1f} nats apart: "
                "another model, or an answer that was cut; set dpo.sampled_reference=false"
            )
    return own


def _key(identity: str, pair: TokenizedPair) -> bytes:
    said = json.dumps([identity, pair.prompt_ids, pair.chosen_ids, pair.rejected_ids])
    return hashlib.sha256(said.encode()).digest()

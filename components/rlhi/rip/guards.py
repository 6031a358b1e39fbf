"""What keeps a few users from being most of the data: no bursts of one prompt, and caps per conversation and user.

Caps on users and on all pairs make runs equally large, whose data differ in how many users they come from (Fig. 4).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlhi.caps import beyond
from rlhi.config import digest
from rlhi.near import signature
from rlhi.records import Pair, Reason
from rlhi.rip.config import RipConfig


def conversation_of(pair: Pair) -> str:
    """The id of the conversation that a pair comes from: a turn's id is that, a slash, and its place."""
    return pair.id.rpartition("/")[0] or pair.id


@dataclass
class _Seen:
    """The prompts of one user that were kept so far, as signatures."""

    conversations: list[str] = field(default_factory=list)
    contexts: list[list[int]] = field(default_factory=list)
    requests: list[list[int]] = field(default_factory=list)


def bursts(pairs: Iterable[Pair], similarity: float, seed: int) -> set[str]:
    """Ids of pairs whose prompt nearly repeats one that the same user sent in an earlier conversation.

    Both the request itself and all that the user said up to it must be alike: "Go on." after another text is another
    prompt, and so is another question about the same long text. Within a conversation prompts build on one another; how
    many of those count is for the cap per conversation.
    """
    users: dict[str, _Seen] = defaultdict(_Seen)
    repeats = set()
    for pair in pairs:
        said = [message.content for message in pair.context if message.role == "user"]
        context, request = signature(" ".join(said), seed), signature(said[-1] if said else "", seed)
        seen, conversation = users[pair.user_id], conversation_of(pair)
        alike = _alike(seen.contexts, context, similarity) & _alike(seen.requests, request, similarity)
        if any(seen.conversations[place] != conversation for place in np.flatnonzero(alike)):
            repeats.add(pair.id)
        else:
            seen.conversations.append(conversation)
            seen.contexts.append(context)
            seen.requests.append(request)
    return repeats


def over_caps(pairs: Sequence[Pair], config: RipConfig) -> dict[str, Reason]:
    """The pairs that are left out, by seed: beyond what a conversation may have, a user, so many users, and all.

    Each cap counts what those before it have left.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        groups[conversation_of(pair)].append(pair.id)
    out: dict[str, Reason] = {}
    for own in groups.values():
        out |= dict.fromkeys(beyond(own, config.max_per_conversation, config.seed), "conversation_pair_cap")
    users: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        if pair.id not in out:
            users[pair.user_id].append(pair.id)
    for own in users.values():
        out |= dict.fromkeys(beyond(own, config.max_per_user, config.seed), "user_pair_cap")
    left = [pair for pair in pairs if pair.id not in out]
    others = _other_users(left, config)
    out |= {pair.id: "pair_user_cap" for pair in left if pair.user_id in others}
    left = [pair for pair in left if pair.user_id not in others]
    return out | dict.fromkeys(beyond((pair.id for pair in left), config.max_pairs, config.seed), "pair_cap")


def _other_users(pairs: Sequence[Pair], config: RipConfig) -> set[str]:
    """The users who are not among those with the most pairs; where some have as many, the seed chooses."""
    counts = Counter(pair.user_id for pair in pairs)
    by_seed = sorted(counts, key=lambda user: digest(f"cap {config.seed} {user}"))
    ranked = sorted(by_seed, key=counts.__getitem__, reverse=True)
    return set() if config.max_users is None else set(ranked[config.max_users :])


def _alike(known: Sequence[Sequence[int]], one: Sequence[int], similarity: float) -> np.ndarray:
    """For each known signature whether ``one`` is as similar to it."""
    if not known:
        return np.zeros(0, bool)
    found: np.ndarray = (np.asarray(known, np.uint32) == np.asarray(one, np.uint32)).mean(axis=1) >= similarity
    return found

"""Which conversations go into which persona, and when: one persona per user, or one per conversation from before it.

Nothing here knows a model: ``make`` turns materials into personas, all of them at once.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from rlhi.conversations import in_time
from rlhi.history import Utterance, newest_first
from rlhi.records import Conversation, Dropped, Persona, Reason


@dataclass(frozen=True)
class Material:
    """What a persona of ``user`` is made of: what was said, newest first, and the persona so far, if there is one."""

    key: str
    user: str | None
    said: Sequence[Utterance]
    so_far: Persona | None = None


@dataclass(frozen=True)
class Made:
    """A persona's text and the conversations that were read for it, newest first; or why there is none."""

    text: str
    read: tuple[str, ...]
    reason: Reason | None
    redacted: Counter[str] = field(default_factory=Counter)


Make = Callable[[Sequence[Material]], list[Made]]


@dataclass
class Written:
    """Personas and drops, and counts of what was done."""

    kept: list[Persona] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def put(self, key: str, persona: Persona | None, reason: Reason) -> None:
        """A persona, or else why ``key`` has none."""
        if persona is not None:
            self.kept.append(persona)
        else:
            self.dropped.append(Dropped(key, reason))


def per_user(rows: Iterable[Conversation], previous: Iterable[Persona], make: Make) -> Written:
    """One persona per user, in the order in which users first appear, from all but held-out conversations.

    A user's previous persona stays as it is while nothing new was said, is updated from what is new, and is forgotten
    where it read a conversation that is gone, so that what was erased leaves the persona too.
    """
    own: dict[str, list[Conversation]] = defaultdict(list)
    for row in rows:
        own[row.user_id] += [row] if row.split != "held-out" else []
    before = {persona.user_id: persona for persona in previous}
    so_far = {user: _still_good(before.get(user), conversations) for user, conversations in own.items()}
    fresh = {user: _fresh(conversations, so_far[user]) for user, conversations in own.items()}
    asked = [user for user in own if fresh[user] or so_far[user] is None]
    made = make([Material(user, user, newest_first(fresh[user]), so_far[user]) for user in asked])
    answers = dict(zip(asked, made, strict=True))
    written = Written()
    for user in own:
        one = answers.get(user)
        written.put(user, _next(user, so_far[user], one, written.counts), (one and one.reason) or "empty_persona")
    return written


def time_safe(rows: Sequence[Conversation], make: Make) -> Written:
    """One persona per training conversation, from the user's strictly earlier ones; evaluation users as in `per_user`.

    Each next persona is an update of the one before, all users in step. A conversation without a time has an unknown
    place in the order: it gets no persona and feeds none.
    """
    written = per_user((row for row in rows if row.split != "train"), (), make)
    training = [row for row in rows if row.split == "train"]
    chains = _chains(training)
    for place in range(max((len(chain.steps) for chain in chains), default=1) - 1):
        going = [chain for chain in chains if place + 1 < len(chain.steps)]
        made = make([chain.material(place) for chain in going])
        for chain, one in zip(going, made, strict=True):
            chain.go_on(place, one, written.counts)
    personas = {key: persona for chain in chains for key, persona in chain.personas.items()}
    reasons = {key: reason for chain in chains for key, reason in chain.reasons.items()}
    for row in training:
        written.put(row.id, personas.get(row.id), reasons.get(row.id, "no_timestamp"))
    return written


@dataclass
class _Chain:
    """One user's conversations, those of one time together, with the persona that the steps so far have led to."""

    user: str
    steps: Sequence[Sequence[Conversation]]
    so_far: Persona | None = None
    personas: dict[str, Persona] = field(default_factory=dict)
    reasons: dict[str, Reason] = field(default_factory=dict)

    def material(self, place: int) -> Material:
        """All that was said up to and with step ``place`` and is not in the persona yet."""
        earlier = [row for step in self.steps[: place + 1] for row in step]
        read = self.so_far.conversations if self.so_far is not None else ()
        said = newest_first(row for row in earlier if row.id not in read)
        return Material(self.steps[place][-1].id, self.user, said, self.so_far)

    def go_on(self, place: int, made: Made, counts: Counter[str]) -> None:
        """Gives what was made of the steps up to ``place`` to the conversations of the next."""
        self.so_far = _next(self.user, self.so_far, made, counts)
        for row in self.steps[place + 1]:
            if self.so_far is not None:
                self.personas[row.id] = dataclasses.replace(self.so_far, conversation_id=row.id)
            else:
                self.reasons[row.id] = made.reason or "empty_persona"


def _chains(training: Iterable[Conversation]) -> list[_Chain]:
    own: dict[str, list[Conversation]] = defaultdict(list)
    for row in sorted((row for row in training if row.timestamp is not None), key=in_time):
        own[row.user_id].append(row)
    chains = []
    for user, conversations in own.items():
        steps = [list(same) for _, same in groupby(conversations, key=lambda row: row.timestamp)]
        first: dict[str, Reason] = {row.id: "no_earlier_conversation" for row in steps[0]}
        chains.append(_Chain(user, steps, reasons=first))
    return chains


def _next(user: str, so_far: Persona | None, made: Made | None, counts: Counter[str]) -> Persona | None:
    """The persona after ``made``: a new one, an updated one, or the one so far where nothing could be made."""
    if made is None or made.reason is not None:
        if so_far is not None:
            counts["unchanged"] += 1
        return so_far
    counts["inferred" if so_far is None else "updated"] += 1
    counts.update({f"redacted/{kind}": n for kind, n in made.redacted.items()})
    earlier = () if so_far is None else so_far.conversations
    return Persona(user, made.text, tuple(dict.fromkeys([*made.read, *earlier])), None)


def _still_good(persona: Persona | None, own: Sequence[Conversation]) -> Persona | None:
    """The previous persona, unless it read nothing, or a conversation that its user no longer has."""
    if persona is None or not persona.conversations:
        return None
    return persona if set(persona.conversations) <= {row.id for row in own} else None


def _fresh(own: Sequence[Conversation], persona: Persona | None) -> list[Conversation]:
    """What is not in the persona: later than all it read, since what did not fit then would not be news now."""
    if persona is None:
        return list(own)
    newest = max(in_time(row) for row in own if row.id in persona.conversations)
    unread = [row for row in own if row.id not in persona.conversations]
    return [row for row in unread if row.timestamp is None or in_time(row) > newest]

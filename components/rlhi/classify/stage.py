"""Labels each follow-up: new, re-attempt with or without feedback, or positive feedback.

The first user message of a conversation is the initial request; every later one is compared with an earlier request
(2.2, Fig. 6). The paper does not say which request is "initial" for the third turn and later; `initial` chooses, and
the default is the latest one that was labelled new. The model picks among the four labels by their log-probability, so
every answer is a label; the prompt has one example of each label where the paper's has none of positive feedback.

`calibrate` takes away each label's log-probability on a request without content ("Calibrate Before Use", Zhao et al.
2021, in log space). A model of 135M parameters needs it: it prefers one label whatever it reads.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, StageConfig
from rlhi.conversations import turn_id, user_indices
from rlhi.engine import Engine, Request, open_engine
from rlhi.records import Conversation, Dropped, Label, Message, Turn
from rlhi.render import prompt

CHOICES: dict[str, Label] = {
    "[[New]]": "new",
    "[[Re-attempt with feedback]]": "re-attempt with feedback",
    "[[Re-attempt without feedback]]": "re-attempt without feedback",
    "[[Positive feedback]]": "positive feedback",
}
EMPTY = "N/A"


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class ClassifyConfig(StageConfig):
    """Who classifies, and what a follow-up is compared with."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    initial: Literal["latest-new", "first", "previous"] = Field(
        default="latest-new",
        description="The request that a follow-up is compared with; the paper leaves it open (Fig. 6).",
    )
    calibrate: bool = Field(
        default=False, description="Take away each label's score on an empty request: for small models."
    )


def run(conversations: Input[Conversation], turns: Output[Turn], config: ClassifyConfig) -> None:
    """Writes one `Turn` per user message; follow-ups that could not be labelled are dropped with a reason."""
    rows = conversations.read()
    kept, dropped = classify(rows, open_engine(config.engine), config)
    turns.write(kept, dropped, sum(len(user_indices(row)) for row in rows))
    counts = Counter(turn.label for turn in kept)
    turns.measure({f"share/{label}": n / len(kept) for label, n in counts.items()})


def classify(rows: Sequence[Conversation], engine: Engine, config: ClassifyConfig) -> tuple[list[Turn], list[Dropped]]:
    """Labels turn by turn, all conversations at once, since what a turn is compared with hangs on earlier labels."""
    labels: dict[str, Label | None] = {turn_id(row, user_indices(row)[0]): "initial" for row in rows}
    too_long: set[str] = set()
    prior = _prior(engine) if config.calibrate else [0.0] * len(CHOICES)
    for place in range(1, max((len(user_indices(row)) for row in rows), default=0)):
        asked = [row for row in rows if len(user_indices(row)) > place]
        requests = [_request(row, place, labels, config) for row in asked]
        fits = [request for request in requests if engine.count_tokens(request) <= engine.max_prompt_tokens]
        too_long |= {request.key for request in requests} - {request.key for request in fits}
        scores = engine.choose(fits, list(CHOICES))
        labels |= {request.key: best(own, prior) for request, own in zip(fits, scores, strict=True)}
    return _split(rows, labels, too_long)


def best(scores: Sequence[float], prior: Sequence[float]) -> Label | None:
    """The label with the highest score above its prior; null where the best two are equal."""
    above = [score - own for score, own in zip(scores, prior, strict=True)]
    first, second = sorted(above, reverse=True)[:2]
    return list(CHOICES.values())[above.index(first)] if first > second else None


def _prior(engine: Engine) -> list[float]:
    return engine.choose([_ask("prior", EMPTY, EMPTY)], list(CHOICES))[0]


def _request(row: Conversation, place: int, labels: dict[str, Label | None], config: ClassifyConfig) -> Request:
    indices = user_indices(row)
    before = indices[:place]
    if config.initial == "first":
        compared = before[0]
    elif config.initial == "previous":
        compared = before[-1]
    else:
        compared = next(i for i in reversed(before) if labels.get(turn_id(row, i)) in ("new", "initial"))
    return _ask(turn_id(row, indices[place]), row.messages[compared].content, row.messages[indices[place]].content)


def _ask(key: str, initial: str, current: str) -> Request:
    text = prompt("rlhi.classify", "prompt.j2", initial_request=initial, current_request=current)
    return Request(key, (Message("user", text),))


def _split(
    rows: Sequence[Conversation], labels: dict[str, Label | None], too_long: set[str]
) -> tuple[list[Turn], list[Dropped]]:
    kept, dropped = [], []
    for row in rows:
        for index in user_indices(row):
            key = turn_id(row, index)
            label = labels.get(key)
            if label is None:
                dropped.append(Dropped(key, "prompt_too_long" if key in too_long else "unreadable_label"))
            else:
                kept.append(Turn(key, row.id, row.user_id, index, label))
    return kept, dropped

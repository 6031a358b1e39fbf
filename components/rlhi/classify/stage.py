"""Labels each follow-up: new, re-attempt with or without feedback, or positive feedback.

The first user message of a conversation is the initial request; every later one is compared with an earlier request
(2.2, Fig. 6). The paper does not say which request is "initial" for the third turn and later; `initial` chooses, and
the default is the latest one that was labelled new. The model picks among the four labels by their log-probability, so
every answer is a label, or it writes its answer (`method`); what names no label is null and dropped, never guessed. The
prompt has one example of each label where the paper's has none of positive feedback.

`calibrate` takes away each label's log-probability on a request without content ("Calibrate Before Use", Zhao et al.
2021, in log space). A model of 135M parameters needs it: it prefers one label whatever it reads.

After the labels, the turns of training users who give no meaningful feedback are marked, and neither rewritten nor
sampled (C.1, point 6; see `meaningful.py`). They stay in the output, so that shares are over every user message.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.classify.meaningful import Feedback, meaningful
from rlhi.classify.shares import SHARE, label_shares, labelled_by
from rlhi.config import CLOSED, EngineConfig, StageConfig
from rlhi.conversations import turn_id, user_indices
from rlhi.engine import Engine, Request, open_engine, usual_scores
from rlhi.errors import InputError
from rlhi.progress import whole
from rlhi.questions import Method, Said, ask, bracketed, keep_unread
from rlhi.records import Conversation, Dropped, Label, Message, Reason, Turn
from rlhi.render import prompt

LABELS: dict[str, Label] = {
    "New": "new",
    "Re-attempt with feedback": "re-attempt with feedback",
    "Re-attempt without feedback": "re-attempt without feedback",
    "Positive feedback": "positive feedback",
}
EMPTY = "N/A"


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class ClassifyConfig(StageConfig):
    """Who classifies, how it answers, and what a follow-up is compared with."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    initial: Literal["latest-new", "first", "previous"] = Field(
        default="latest-new",
        description="The request that a follow-up is compared with; the paper leaves it open (Fig. 6).",
    )
    method: Method = Field(
        default="choose", description="By log-probability, or as text where the engine gives no log-probabilities."
    )
    calibrate: bool = Field(
        default=False, description="Take away each label's score on an empty request: for small models."
    )
    meaningful_feedback: bool = Field(
        default=True, description="Learn nothing from training users who give no meaningful feedback (C.1)."
    )
    known: Label | None = Field(
        default=None,
        description="What every follow-up is, where that is known, as of simulated users (C.3); null asks the model.",
    )

    @property
    def asks_models(self) -> bool:
        """Not where the labels are known and nothing is asked of users."""
        return self.known is None or self.meaningful_feedback

    def check(self) -> None:
        """Refuses calibration of a method that has nothing to calibrate."""
        if self.calibrate and self.method != "choose":
            raise InputError(
                f"classify.calibrate: takes away log-probabilities, method={self.method} has none; set calibrate=false"
            )


def run(conversations: Input[Conversation], turns: Output[Turn], config: ClassifyConfig) -> None:
    """Writes one `Turn` per user message; those without a label or of a filtered user are dropped with a reason.

    Raises:
        InputError: calibration of a method that has nothing to calibrate, or without an answer to the empty request.
    """
    config.check()
    rows, engine = conversations.read(), cache(partial(open_engine, config.engine))
    if config.known is None:
        kept, dropped, said = classify(rows, engine(), config)
    else:
        kept, dropped, said = [turn for row in rows for turn in as_known(row, config.known)], [], []
    turns.measure({f"{SHARE}{name}": share for name, share in label_shares(kept, dropped).items()})
    who = config.engine.name if config.known is None else "What is known of the data"
    turns.note("labels", labelled_by(who, len(kept) + len(dropped), len(rows)))
    if config.meaningful_feedback:
        feedback = meaningful(rows, kept, engine(), config.method)
        kept, said = _marked(kept, feedback), [*said, *feedback.said]
        turns.measure(feedback.metrics)
    turns.holds(row.user_id for row in rows)  # what could not be read is kept too
    turns.write(kept, dropped, sum(len(user_indices(row)) for row in rows))
    keep_unread(turns, said)


def as_known(row: Conversation, label: Label) -> list[Turn]:
    """The turns of a conversation whose every follow-up is of one kind."""
    indices = user_indices(row)
    labels: list[Label] = ["initial", *[label] * (len(indices) - 1)]
    return [
        Turn(turn_id(row, index), row.id, row.user_id, index, each) for index, each in zip(indices, labels, strict=True)
    ]


def classify(
    rows: Sequence[Conversation], engine: Engine, config: ClassifyConfig
) -> tuple[list[Turn], list[Dropped], list[Said]]:
    """Labels turn by turn, all conversations at once, since what a turn is compared with hangs on earlier labels."""
    labels: dict[str, Label | None] = {turn_id(row, user_indices(row)[0]): "initial" for row in rows}
    reasons: dict[str, Reason] = {}
    said: list[Said] = []
    prior = _prior(engine) if config.calibrate else None
    lengths = [len(user_indices(row)) for row in rows]
    with whole("classifying", sum(lengths) - len(rows), "turn") as shown:
        for place in range(1, max(lengths, default=0)):
            asked = [row for row, length in zip(rows, lengths, strict=True) if length > place]
            requests = [_request(row, place, labels, config) for row in asked]
            fits = [request for request in requests if engine.count_tokens(request) <= engine.max_prompt_tokens]
            reasons |= dict.fromkeys({each.key for each in requests} - {each.key for each in fits}, "prompt_too_long")
            shown.update(len(requests) - len(fits))
            answers = ask(fits, list(LABELS), engine, config.method, prior)
            labels |= {answer.key: LABELS.get(answer.name or "") for answer in answers}
            reasons |= {answer.key: answer.missing for answer in answers if answer.missing is not None}
            said += answers
    kept, dropped = _split(rows, labels, reasons)
    return kept, dropped, said


def _marked(turns: Sequence[Turn], feedback: Feedback) -> list[Turn]:
    """The turns of training users with the answer to whether they give feedback."""
    asked = frozenset(feedback.users)
    return [
        replace(turn, meaningful_feedback=turn.user_id not in feedback.without) if turn.user_id in asked else turn
        for turn in turns
    ]


def _prior(engine: Engine) -> list[float]:
    return usual_scores(engine, _ask("prior", EMPTY, EMPTY, None), bracketed(LABELS))


def _request(row: Conversation, place: int, labels: dict[str, Label | None], config: ClassifyConfig) -> Request:
    indices = user_indices(row)
    before = indices[:place]
    if config.initial == "first":
        compared = before[0]
    elif config.initial == "previous":
        compared = before[-1]
    else:
        compared = next(i for i in reversed(before) if labels.get(turn_id(row, i)) in ("new", "initial"))
    initial, current = row.messages[compared].content, row.messages[indices[place]].content
    return _ask(turn_id(row, indices[place]), initial, current, row.user_id)


def _ask(key: str, initial: str, current: str, user: str | None) -> Request:
    text = prompt("rlhi.classify", "prompt.j2", initial_request=initial, current_request=current)
    return Request(key, (Message("user", text),), user_id=user)


def _split(
    rows: Sequence[Conversation], labels: dict[str, Label | None], reasons: Mapping[str, Reason]
) -> tuple[list[Turn], list[Dropped]]:
    kept, dropped = [], []
    for row in rows:
        for index in user_indices(row):
            key = turn_id(row, index)
            label = labels.get(key)
            if label is None:
                dropped.append(Dropped(key, reasons.get(key, "unreadable_label")))
            else:
                kept.append(Turn(key, row.id, row.user_id, index, label))
    return kept, dropped

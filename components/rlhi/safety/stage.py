"""Measures what a model must not become: one that answers what it should refuse, or agrees with what is wrong.

The paper trains on what users say, and measures neither; users also ask for what safety rules out, and like to be
agreed with. Two shares, the less the better, with intervals over items: unsafe prompts that were answered (a judge
reads the replies, see `rlhi.safety.unsafe`), and right answers given up when the user denies them (read by rule, see
`rlhi.safety.sycophancy`). What cannot be read counts for nothing, and is counted.

The items are ours or a file's (`rlhi.safety.items` says what its rows are); 30 of each kind tell a jump, no drift: a
gate that matters wants more of them. With a model that dpo made, that one answers; without, the engine's own. Answers
are greedy, so that two models differ by themselves and not by luck.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.analyze.estimates import Bootstrap
from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, SamplingConfig, StageConfig
from rlhi.engine import Engine, Request, generate, open_engine
from rlhi.errors import InputError
from rlhi.manifest import base_of
from rlhi.questions import Method
from rlhi.records import Dropped, Message, Pair, Reason, SafetyGrade
from rlhi.safety import sycophancy, unsafe
from rlhi.safety.figures import as_metrics, shares, table
from rlhi.safety.items import SafetyItem, read_items


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class SafetyConfig(StageConfig):
    """Who answers, and who says whether it refused."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    sampling: SamplingConfig = Field(
        default_factory=lambda: SamplingConfig(temperature=0, top_p=1, max_tokens=256),
        description="How answers are drawn.",
    )
    own_base: bool = Field(
        default=False,
        description="With --model, the model that it was trained from answers through `engine`, whatever that names:"
        " for an opponent whose base is not known before.",
    )
    judge: EngineConfig = Field(default_factory=EngineConfig)
    method: Method = Field(
        default="choose",
        description="How the judge is asked: 'choose' compares the log-probabilities of [[Refused]] and [[Answered]],"
        " 'generate' lets it write.",
    )
    calibrate: bool = Field(
        default=False, description="Take away each choice's score for an answer that says nothing: for small judges."
    )
    resamples: int = Field(default=2000, ge=100, description="Bootstrap resamples of items for the intervals.")

    def check(self) -> None:
        """Refuses settings that contradict each other.

        Raises:
            InputError: calibration of a written verdict.
        """
        if self.calibrate and self.method != "choose":
            raise InputError(
                "safety.calibrate: takes away log-probabilities, method=generate has none; set calibrate=false"
            )


def run(
    grades: Output[SafetyGrade],
    config: SafetyConfig,
    model: Input[Pair] | None = None,
    items: Annotated[str, "Items of one's own: files or folders, local or s3://, commas between them. [ours]"] = "",
) -> None:
    """Writes one `SafetyGrade` per item, the two shares, and ``safety.md``.

    Raises:
        InputError: a row that is no item, or no item left to ask.
    """
    asked = read_items(items)
    answering = config.engine
    if model is not None and config.own_base:
        answering = replace(answering, model=base_of(model.manifest, answering.model))
    engine = open_engine(answering, None if model is None else model.path)
    kept, dropped = measure(asked, engine, open_engine(config.judge), config)
    if not kept:
        raise InputError("safety: no item was answered; see why with a larger engine.model.max_prompt_tokens")
    grades.write(kept, dropped, len(asked))
    found = shares(kept, Bootstrap(config.resamples, config.seed))
    grades.measure(as_metrics(found))
    trained = "" if model is None else f", trained on {model.manifest.kept} preference pairs"
    grades.file("safety.md").write_text(table(found, f"{answering.name}{trained}"))


def measure(
    items: Sequence[SafetyItem], engine: Engine, judge: Engine, config: SafetyConfig
) -> tuple[list[SafetyGrade], list[Dropped]]:
    """Grades in the order of ``items``, and the items that could not be asked, or that the server did not answer."""
    answers, missing = _answers({item.id: _request(item) for item in items}, engine, config)
    syco = [item for item in items if item.kind == "sycophancy" and item.id in answers]
    right = [item for item in syco if sycophancy.is_right(answers[item.id], item)]
    replies, lost = _answers({item.id: sycophancy.correction(item, answers[item.id]) for item in right}, engine, config)
    missing |= lost
    harmful = [item for item in items if item.kind == "unsafe" and item.id in answers]
    graded = unsafe.grade(harmful, answers, judge, config.method, calibrate=config.calibrate)
    graded += sycophancy.grade([item for item in syco if item.id not in lost], answers, replies)
    found = {each.item_id: each for each in graded}
    dropped = [Dropped(item.id, missing[item.id]) for item in items if item.id in missing]
    return [found[item.id] for item in items if item.id in found], dropped


def _answers(
    requests: Mapping[str, Request], engine: Engine, config: SafetyConfig
) -> tuple[dict[str, str], dict[str, Reason]]:
    """The answers by item, and why items have none."""
    long = {key for key, each in requests.items() if engine.count_tokens(each) > engine.max_prompt_tokens}
    fits = {key: each for key, each in requests.items() if key not in long}
    replies = generate(engine, list(fits.values()), config.sampling, 1, config.seed)
    said = {key: reply for key, (reply,) in zip(fits, replies, strict=True)}
    missing: dict[str, Reason] = {key: each.missing for key, each in said.items() if each.missing is not None}
    missing |= dict.fromkeys(long, "prompt_too_long")
    return {key: each.text for key, each in said.items() if each.missing is None}, missing


def _request(item: SafetyItem) -> Request:
    return Request(item.id, (Message("user", item.prompt),), user_id=item.id)

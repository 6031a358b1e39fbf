"""Compares the evaluated model with another one's evaluation, turn by turn against the same opponents."""

from typing import Any

from rlhi.artifacts import Input
from rlhi.config import as_dict
from rlhi.errors import InputError
from rlhi.evaluate.config import EvaluateConfig
from rlhi.evaluate.differences import Difference, between_models
from rlhi.evaluate.results import load
from rlhi.evaluate.winrates import Outcomes, judged, rewarded
from rlhi.records import Verdict

EVALUATED, EARLIER = "evaluated", "earlier"
SAME = (
    "method",
    "judge_sampling",
    "orders",
    "calibrate",
)  # with the judge's model and the reward: who says what is won


def since(earlier: Input[Verdict], outcomes: Outcomes, config: EvaluateConfig) -> list[Difference]:
    """The evaluated model less the earlier one, per opponent, mode and metric that both have.

    Raises:
        InputError: the earlier one was judged otherwise, or not on the same turns.
    """
    _check(earlier, config)
    before = load(earlier.path)
    others = {**judged(before.verdicts), **rewarded(before.contests)}
    found = between_models((EVALUATED, outcomes), (EARLIER, others), config.resamples, config.seed)
    if not any(each.turns for each in found):
        raise InputError(f"{earlier.path}: has no turn in common with this evaluation; give one of the same users")
    return found


def _check(earlier: Input[Verdict], config: EvaluateConfig) -> None:
    then, now = earlier.manifest.config, as_dict(config)
    for name in SAME:
        _refuse_other(earlier, name, then.get(name), now[name])
    _refuse_other(earlier, "judge.model", then["judge"]["model"], now["judge"]["model"])
    _refuse_other(earlier, "reward.model", then["reward"]["model"], now["reward"]["model"])


def _refuse_other(earlier: Input[Verdict], name: str, then: Any, now: Any) -> None:
    if then != now:
        raise InputError(
            f"{earlier.path}: was judged with evaluate.{name}={then!r}, and this with {now!r}; what they won cannot be"
            " compared: evaluate both in the same way"
        )

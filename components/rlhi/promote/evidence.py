"""What is known of a candidate and of whom it has to beat, and whether that is about these very models.

Outputs say by digest what they are of. A comparison with yesterday's champion, or safety figures of another model, must
not move an alias: such a figure counts as not measured, and the reason says which command makes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhi.artifacts import Input
from rlhi.errors import InputError
from rlhi.evaluate.results import load
from rlhi.manifest import Manifest
from rlhi.promote.registry import Version
from rlhi.promote.rules import Measured
from rlhi.records import Opponent, Pair, RuleName, SafetyGrade, Verdict

JUDGED_BY = ("judge", "method", "calibrate", "sampling")  # settings of safety by which two figures can be compared


@dataclass(frozen=True)
class Evidence:
    """The outputs that are given: of dpo, of evaluate, and of safety for the candidate and for its opponent."""

    model: Input[Pair]
    verdicts: Input[Verdict]
    safety: Input[SafetyGrade] | None = None
    opponent_safety: Input[SafetyGrade] | None = None

    def against(self, champion: Version | None) -> Measured:
        """What it says of the model against ``champion``, or without one against the base model.

        Raises:
            InputError: the verdicts are of another model.
        """
        if self.verdicts.manifest.inputs.get("model") != self.model.manifest.digest:
            raise InputError(
                f"{self.verdicts.path}: judged another model than {self.model.path}; give the output of evaluate for"
                " this one"
            )
        opponent: Opponent = "base" if champion is None else "champion"
        lacking: dict[RuleName, str] = {}
        why = self._no_comparison(champion)
        if why is not None:
            lacking |= {"win_rate": why, "length": why}
        unsafe = self._no_safety(champion)
        if unsafe is not None:
            lacking |= {"unsafe": unsafe, "sycophancy": unsafe}
        return Measured(
            opponent,
            None if why is not None else load(self.verdicts.path),
            None if unsafe is not None or self.safety is None else self.safety.read(),
            None if unsafe is not None or self.opponent_safety is None else self.opponent_safety.read(),
            lacking,
        )

    def _no_comparison(self, champion: Version | None) -> str | None:
        """Why the verdicts do not tell of this opponent."""
        described = self.verdicts.manifest
        opponent = "base" if champion is None else "champion"
        if opponent not in (*described.config["opponents"], *described.inputs):
            return f"not judged against the {opponent}; run evaluate with opponents=[{opponent!r}]"
        if champion is not None and described.inputs.get("champion") != champion.digest:
            return f"judged against another model than the champion, version {champion.number}; run evaluate against it"
        return None

    def _no_safety(self, champion: Version | None) -> str | None:
        """Why the safety figures do not compare these two models."""
        if self.safety is None or self.opponent_safety is None:
            return "safety of both models is needed; run safety for each, and give --safety and --opponent-safety"
        ours, theirs = self.safety.manifest, self.opponent_safety.manifest
        if ours.inputs.get("model") != self.model.manifest.digest:
            return "--safety is of another model; run safety for this one"
        base = (self.model.manifest.config["model"]["id"], theirs.config["engine"]["model"]["id"])
        other_base = champion is None and base[0] != base[1]
        if theirs.inputs.get("model") != (None if champion is None else champion.digest) or other_base:
            whom = "the base model" if champion is None else f"the champion, version {champion.number}"
            return f"--opponent-safety is of another model than {whom}; run safety for that one"
        other = _first_difference(ours, theirs)
        return other and f"the two models were not measured alike: {other} differs; run safety for both in the same way"


def _first_difference(ours: Manifest, theirs: Manifest) -> str | None:
    if ours.prompt_hashes != theirs.prompt_hashes:
        return "the wording of the prompts"
    one, other = _asked(ours), _asked(theirs)
    return next((name for name in one if one[name] != other[name]), None)


def _asked(described: Manifest) -> Mapping[str, Any]:
    return {name: described.config[name] for name in JUDGED_BY}

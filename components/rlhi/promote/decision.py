"""The decision on one model, and how it is told: on screen, on a page, and as tags of the version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhi.evaluate.results import judge_of
from rlhi.promote.config import PromoteConfig
from rlhi.promote.evidence import Evidence
from rlhi.promote.registry import CANDIDATE, CHAMPION, DIGEST, Version
from rlhi.records import Rule


@dataclass(frozen=True)
class Told:
    """What ``decision.json`` holds. ``version`` is null where nothing was registered."""

    model: str
    digest: str
    promoted: bool
    dry_run: bool
    version: str | None
    opponent: str
    judge: str
    rules: Sequence[Rule]


@dataclass(frozen=True)
class Decision:
    """What was found of a model against ``champion``; ``already`` says that it is champion, and was not judged."""

    config: PromoteConfig
    evidence: Evidence
    champion: Version | None
    rules: Sequence[Rule]
    already: bool = False
    version: str | None = None

    @property
    def promoted(self) -> bool:
        """Whether it becomes champion, or is it already."""
        return not self.failed

    @property
    def failed(self) -> list[Rule]:
        """The rules that keep it from that."""
        return [rule for rule in self.rules if rule.failed is not None]

    @property
    def opponent(self) -> str:
        """Whom it had to beat."""
        return "the base model" if self.champion is None else f"champion version {self.champion.number}"

    @property
    def headline(self) -> str:
        """The outcome as a sentence."""
        name = self.config.name if self.version is None else f"{self.config.name} version {self.version}"
        if self.already:
            return f"{name}: this model is {self.opponent} already; nothing to do"
        if self.config.dry_run:
            return f"{name}: would be {CHAMPION if self.promoted else CANDIDATE}; nothing is registered (dry run)"
        if self.promoted:
            return f"{name}: is {CHAMPION} now; it had to beat {self.opponent}"
        return f"{name}: is {CANDIDATE}, since {' and '.join(rule.name for rule in self.failed)} failed"

    @property
    def lines(self) -> list[str]:
        """The outcome with every rule."""
        return [f"  {'failed' if rule.failed else 'holds '} {rule.name}: {rule.said}" for rule in self.rules] + [
            self.headline
        ]

    @property
    def told(self) -> Told:
        """For ``decision.json``."""
        return Told(
            model=self.config.name,
            digest=self.evidence.model.manifest.digest,
            promoted=self.promoted,
            dry_run=self.config.dry_run,
            version=self.version,
            opponent=self.opponent,
            judge=judge_of(self.evidence.verdicts.path),
            rules=self.rules,
        )

    @property
    def markdown(self) -> str:
        """The decision as a page; of the version, the description, which must stay true whoever is champion later."""
        gap = "&nbsp;&nbsp;| "  # MLflow sets no space between columns
        cells = [(rule.name, "failed" if rule.failed else "holds", _cell(rule.said)) for rule in self.rules]
        rows = ["rule | | what was found".replace("| ", gap), "---|---|---", *(gap.join(each) for each in cells)]
        last = f"Judge: {self.told.judge}. Card, data and figures are in the source run."
        return "\n".join([self.verdict, "", *(rows if cells else []), "", last, ""])

    @property
    def verdict(self) -> str:
        """What the gate said, as a sentence."""
        if self.already:
            return f"This model is {self.opponent} already."
        if self.promoted:
            return f"Passed the gate, against {self.opponent}."
        return f"Did not pass the gate, against {self.opponent}: {', '.join(rule.name for rule in self.failed)} failed."

    @property
    def tags(self) -> Mapping[str, str]:
        """What the version carries."""
        described = self.evidence.model.manifest
        failed = ", ".join(f"{rule.name} ({rule.failed})" for rule in self.failed)
        return {
            DIGEST: described.digest,
            "rlhi.code_version": described.code_version,
            "rlhi.decision": "passed" if self.promoted else "refused",
            "rlhi.failed": failed or "none",
            "rlhi.opponent": self.opponent,
            "rlhi.judge": self.told.judge,
            **{f"rlhi.rule.{rule.name}": _short(rule) for rule in self.rules},
            **{f"rlhi.data.{name}": digest for name, digest in described.data.items()},
        }


def _short(rule: Rule) -> str:
    """A rule in the width of a tag: ``failed: 0.52 [0.48, 0.56]``."""
    value = "not measured" if rule.value is None else f"{rule.value:.3g}"
    bounds = "" if rule.low is None or rule.high is None else f" [{rule.low:.3g}, {rule.high:.3g}]"
    return f"{'failed' if rule.failed else 'holds'}: {value}{bounds}"


def _cell(text: str) -> str:
    return text.replace("|", "/")

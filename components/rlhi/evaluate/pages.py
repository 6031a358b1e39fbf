"""From an evaluation and what came before it to the report that shows both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhi.artifacts import Input
from rlhi.classify.shares import LabelShares, measured_shares
from rlhi.config import as_dict
from rlhi.dpo.stage import read_history
from rlhi.evaluate.config import EvaluateConfig
from rlhi.evaluate.report import Report
from rlhi.evaluate.results import Results
from rlhi.manifest import FunnelRow, Manifest, merge_funnels
from rlhi.records import Pair, Persona


@dataclass(frozen=True)
class Background:
    """What the evaluated model learned from; ``model`` is null where it is a model as it is, trained by nobody here."""

    upstream: Sequence[Input[Any]]
    personas: Sequence[Persona]
    pairs: Sequence[Pair]
    model: Input[Pair] | None

    @property
    def manifests(self) -> list[Manifest]:
        """Of all that was read."""
        return [each.manifest for each in self.upstream]


def report(
    results: Results, before: Background, own: FunnelRow, config: EvaluateConfig, asked: Mapping[str, float]
) -> Report:
    """What the page of an evaluation shows; ``asked`` are the metrics of what it asked models so far."""
    manifests = before.manifests
    notes = {name: text for each in manifests for name, text in each.notes.items() if name != "reward_scale"}
    warned = [notes.pop(name) for name in list(notes) if name.startswith("warning: ")]  # of training
    settings = {name: own for each in manifests for name, own in each.settings.items()}
    measured = {name: own for each in manifests for name, own in each.measured.items()}
    return Report(
        title="What users said, what was learned, and how sure that is",
        summary=_summary(before, config),
        judge=config.judge.name,
        results=results,
        funnel=[*merge_funnels([each.funnel for each in manifests]), own],
        pairs=before.pairs,
        personas=before.personas,
        history=[] if before.model is None else read_history(before.model.path),
        labels=LabelShares(notes.pop("labels", ""), _shares(before.model)),
        notes=list(notes.values()),
        warnings=warned,
        settings={**settings, "evaluate": as_dict(config)},
        measured={**measured, "evaluate": asked},
    )


def _summary(before: Background, config: EvaluateConfig) -> str:
    if before.model is None:
        return f"{config.model.name} as it is."
    kept = before.model.manifest.kept
    return f"{config.model.name} with a LoRA adapter, trained on {kept} preference pairs."


def _shares(model: Input[Pair] | None) -> dict[str, float]:
    return {} if model is None else measured_shares(model.manifest.measured.get("classify", {}))

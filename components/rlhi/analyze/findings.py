"""All that the analysis found, as numbers for programs: each beside the paper's, with what it stands on."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhi.analyze import diversity, messages
from rlhi.analyze.diversity import Diversity
from rlhi.analyze.estimates import Estimate
from rlhi.analyze.messages import Length, Messages
from rlhi.analyze.traits import DIMENSIONS
from rlhi.records import Dimension, Label, Preference


@dataclass(frozen=True, slots=True)
class Models:
    """Who labelled the messages, wrote the personas, judged the personas, and embedded the contexts."""

    labels: str
    personas: str
    traits: str
    embeddings: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found. ``unjudged`` counts a persona's dimensions that were not judged, by reason."""

    messages: Messages
    traits: Mapping[Dimension, Mapping[Preference, Estimate]]
    unjudged: Mapping[str, int]
    datasets: Sequence[Diversity]
    models: Models


def as_json(found: Findings) -> str:
    """The figures by name; null is what was not measured."""
    said = found.messages
    values = {
        "messages": {
            "shares": _shares(said.shares, messages.PAPER_SHARES),
            "shares_in_conversations_of_several_turns": _shares(said.shares_of_several, messages.PAPER_SHARES),
            "shares_after_the_fifth": _shares(said.shares_late, messages.PAPER_LATE),
            "by_place": {str(place): counts for place, counts in said.places.items()},
            "unlabelled": said.unlabelled,
        },
        "characters": {label: _length(label, own) for label, own in said.lengths.items()},
        "turns_per_conversation": _beside(said.turns, messages.PAPER_TURNS),
        "traits": {dimension: _trait(dimension, own) for dimension, own in found.traits.items()},
        "traits_not_judged": dict(found.unjudged),
        "context_diversity": {
            "datasets": [dataclasses.asdict(each) for each in found.datasets],
            "paper_with_another_embedding_model": diversity.PAPER,
        },
        "models": dataclasses.asdict(found.models),
    }
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_metrics(found: Findings) -> dict[str, float]:
    """The figures for the manifest and MLflow; what was not measured is absent."""
    return {name: value for name, value in _metrics(found) if value is not None}


def _metrics(found: Findings) -> Iterator[tuple[str, float | None]]:
    for label, share in found.messages.shares.items():
        yield from _bounded(f"share/{label}", share)
    for label, share in found.messages.shares_late.items():
        yield f"share_after_the_fifth/{label}", share.value
    for label, length in found.messages.lengths.items():
        yield f"characters/{label}", length.mean.value
    yield from _bounded("turns_per_conversation", found.messages.turns)
    for dimension, shares in found.traits.items():
        for preference, share in shares.items():
            yield from _bounded(f"trait/{dimension}/{DIMENSIONS[dimension].names[preference]}", share)
    for each in found.datasets:
        yield f"context_distance/{each.name}", each.distance


def _bounded(name: str, found: Estimate) -> Iterator[tuple[str, float | None]]:
    yield from ((name, found.value), (f"{name}/low", found.low), (f"{name}/high", found.high))


def _shares(shares: Mapping[Label, Estimate], paper: Mapping[Label, float]) -> dict[str, Any]:
    return {
        label: _beside(share, round(paper[label] / 100, 4) if label in paper else None)
        for label, share in shares.items()
    }


def _length(label: Label, found: Length) -> dict[str, Any]:
    return _beside(found.mean, messages.PAPER_LENGTHS.get(label)) | {"median": found.median}


def _trait(dimension: Dimension, shares: Mapping[Preference, Estimate]) -> dict[str, Any]:
    sides = DIMENSIONS[dimension]
    return {
        sides.names[preference]: _beside(share, round(sides.paper[preference] / 100, 4))
        for preference, share in shares.items()
    }


def _beside(found: Estimate, paper: float | None) -> dict[str, Any]:
    return dataclasses.asdict(found) | {"paper": paper}

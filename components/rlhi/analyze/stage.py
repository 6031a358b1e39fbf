"""Shows what users write, want and ask about, beside the figures of the paper.

Measures the kinds of messages and their lengths, the preferences that personas show, and how diverse contexts are (2.2,
Table 1, App. B), and draws them. It stands beside the main line: nothing is trained on what it makes. `compare` names
datasets to compare contexts with: URIs with commas between them, of chat logs, HH-RLHF, HelpSteer2 or an output of
ingest.

Beyond the paper: each figure has the number of messages and users it stands on and an interval over users, a judgement
that cannot be read is dropped and counted, and the page says which model labelled what. The embedding model is one that
runs here, so its distances cannot be compared with the paper's; the order of datasets can.

`calibrate` takes away each label's log-probability on an empty persona, as in classify: for small models.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.analyze import datasets, diversity, figures, messages
from rlhi.analyze.datasets import Dataset
from rlhi.analyze.diversity import on_a_map
from rlhi.analyze.embeddings import Embedded, EmbeddingConfig, open_embedder
from rlhi.analyze.estimates import Bootstrap
from rlhi.analyze.findings import Findings, Models, as_json, as_metrics
from rlhi.analyze.messages import Said
from rlhi.analyze.page import SMALLEST, Judged, render
from rlhi.analyze.traits import DIMENSIONS, judge, one_per_user, shares
from rlhi.artifacts import Input, Output
from rlhi.config import CLOSED, EngineConfig, StageConfig, as_dict
from rlhi.engine import open_engine
from rlhi.manifest import count_reasons
from rlhi.records import Conversation, Dimension, Dropped, Persona, Preference, Trait, Turn

NOTE = (
    "Labels, personas and preferences are by models, and as good as those; context distances cannot be compared with "
    "the paper's, which are of another embedding model."
)


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class AnalyzeConfig(StageConfig):
    """Who judges personas, who embeds contexts, and of how many."""

    engine: EngineConfig = Field(default_factory=EngineConfig)
    calibrate: bool = Field(
        default=False, description="Take away each label's score on an empty persona: for small models."
    )
    max_users: int = Field(
        default=5000, ge=1, description="Users whose personas are judged at most, by seed (Table 1)."
    )
    embedding: EmbeddingConfig = Field(default_factory=EmbeddingConfig)
    contexts: int = Field(default=500, ge=2, description="Contexts of a dataset at most, by seed (2.2).")
    resamples: int = Field(default=2000, ge=100, description="Bootstrap resamples of users for the intervals.")


def run(
    conversations: Input[Conversation],
    turns: Input[Turn],
    personas: Input[Persona],
    traits: Output[Trait],
    config: AnalyzeConfig,
    compare: Annotated[str, "Datasets to compare contexts with: files, folders or globs, commas between them."] = "",
) -> None:
    """Writes the traits, ``analysis.json``, the pictures and ``analysis.html``.

    Raises:
        InputError: turns of other conversations, or a dataset that cannot be read.
    """
    rows = conversations.read()
    said = messages.labelled(rows, turns.read())
    known = one_per_user(personas.read())
    compared = [datasets.own(rows, config.contexts, config.seed), *datasets.read(compare, config.contexts, config.seed)]
    kept, dropped = judge_all(known, config)
    traits.holds(row.user_id for row in rows)  # on the page
    traits.write(kept, dropped, len(known) * len(DIMENSIONS))
    embedded = embed(compared, config)
    bootstrap = Bootstrap(config.resamples, config.seed)
    found = Findings(
        messages=messages.measure(rows, said, bootstrap),
        traits=shares(kept, bootstrap),
        unjudged=count_reasons(dropped),
        datasets=[diversity.measure(*each, bootstrap) for each in zip(compared, embedded, strict=True)],
        models=models(turns.manifest.config, personas.manifest.config, config),
    )
    traits.measure(as_metrics(found))
    traits.note("analysis", NOTE)
    pictures = draw(found, said, compared, embedded, config.seed)
    for name, picture in pictures.items():
        traits.file(f"{name}.png").write_bytes(picture)
    traits.file("analysis.json").write_text(as_json(found))
    traits.file("analysis.html").write_text(render(found, pictures, messages.examples(said), as_judged(known, kept)))


def judge_all(personas: Sequence[Persona], config: AnalyzeConfig) -> tuple[list[Trait], list[Dropped]]:
    """The traits of all personas; where there are none, no model is loaded."""
    if not personas:
        return [], []
    engine = open_engine(config.engine)
    return judge(personas, engine, calibrate=config.calibrate, max_users=config.max_users, seed=config.seed)


def embed(compared: Sequence[Dataset], config: AnalyzeConfig) -> list[Embedded]:
    """The contexts of each dataset as vectors."""
    embedder = open_embedder(config.embedding)
    return [embedder.embed([context.text for context in dataset.contexts]) for dataset in compared]


def draw(
    found: Findings, said: Sequence[Said], compared: Sequence[Dataset], embedded: Sequence[Embedded], seed: int
) -> dict[str, bytes]:
    """The pictures by name."""
    places = on_a_map(np.concatenate([each.vectors for each in embedded]), seed)
    names = [dataset.name for dataset in compared for _ in dataset.contexts]
    return {
        "types_by_place": figures.types_by_place(found.messages.places),
        "lengths": figures.lengths(said),
        "traits": figures.traits(found.traits),
        "distances": figures.distances(found.datasets),
        "contexts": figures.contexts(places, names),
    }


def as_judged(personas: Sequence[Persona], kept: Sequence[Trait]) -> list[Judged]:
    """Each persona that was judged in any dimension, with what was read from it."""
    by_user: dict[str, dict[Dimension, Preference]] = {}
    for each in kept:
        by_user.setdefault(each.user_id, {})[each.dimension] = each.preference
    return [Judged(each.user_id, each.text, by_user[each.user_id]) for each in personas if each.user_id in by_user]


def models(classified: Mapping[str, Any], inferred: Mapping[str, Any], config: AnalyzeConfig) -> Models:
    """Who did what, from the settings of classify and persona and from ours."""
    embedding = config.embedding.id
    return Models(
        labels=_named(classified),
        personas=_named(inferred),
        traits=_named({"engine": as_dict(config.engine)}),
        embeddings="all-MiniLM-L6-v2" if embedding == "embedded" else embedding,
    )


def _named(settings: Mapping[str, Any]) -> str:
    """What a reader knows the model of a stage's engine as."""
    engine = settings.get("engine", {})
    if engine.get("kind") == "scripted":
        return "a script, not a model"
    model = engine.get("model", {}).get("id", "a model that is not known")
    return SMALLEST if model == "embedded" else str(model)

"""What a person sees before a run: every recipe and experiment, and how they differ from the paper."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from pipelines import recipes, variants
from pipelines.experiment import Other
from pipelines.experiments import Experiment
from pipelines.recipes import Recipe
from rlhi.config import ModelConfig, SamplingConfig


def recipes_table(known: Sequence[Recipe]) -> Table:
    """Every recipe with what it does, what it runs and which of its settings the others do not share."""
    table = Table(title="Recipes", title_justify="left", show_lines=True)
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("what it does", ratio=1)
    table.add_column("stages", ratio=1)
    table.add_column("differs from the paper", no_wrap=True)
    everywhere, shared = _embedded(), shared_settings(known)
    for recipe in known:
        own = {path: value for path, value in variants.differences(recipe).items() if path not in shared}
        own = {path: value for path, value in own.items() if everywhere.get(_last_two(path)) != value}
        table.add_row(recipe.name, escape(recipe.summary), _stages(recipe), escape("\n".join(_settings(own))))
    return table


def experiments_table(known: Sequence[Experiment | Other]) -> Table:
    """Every experiment with what it compares and its arms."""
    table = Table(title="Experiments", title_justify="left", show_lines=True)
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("what it compares", ratio=1)
    table.add_column("arms", no_wrap=True)
    for each in known:
        arms = [arm.name for arm in each.arms] if isinstance(each, Experiment) else []
        table.add_row(each.name, escape(each.summary), "\n".join(arms))
    return table


def shared_text(known: Sequence[Recipe]) -> str:
    """The settings by which every recipe differs from the paper, for it to fit a small machine."""
    everywhere = _embedded()
    shared = {p: v for p, v in shared_settings(known).items() if everywhere.get(_last_two(p)) != v}
    return (
        "All of them are sized for a small model on two CPU cores: "
        f"{', '.join(_settings(everywhere))} in every stage; {', '.join(_settings(shared))}. "
        "Every other setting is the paper's; change any with --set stage.field=value."
    )


def shared_settings(known: Sequence[Recipe]) -> dict[str, Any]:
    """The settings by which all of ``known`` that run the stage differ from the paper in the same way."""
    found = [(recipe.stages, variants.differences(recipe)) for recipe in known]
    every = {path: value for _, values in found for path, value in values.items()}

    def alike(path: str) -> bool:
        stage = path.partition(".")[0]
        return all(values.get(path) == every[path] for stages, values in found if stage in stages)

    return {path: value for path, value in every.items() if alike(path)}


def _embedded() -> dict[str, Any]:
    """The settings of the embedded size that hold in every stage, by their last two names."""
    return {
        **variants.changed(recipes.MODEL, ModelConfig(), "model."),
        **variants.changed(recipes.SAMPLING, SamplingConfig(), "sampling."),
    }


def _stages(recipe: Recipe) -> str:
    repeated = [stage for stage in recipe.stages if recipe.rounds_of(stage) > 1]
    shown = [stage for stage in recipe.stages if stage not in repeated[1:]]
    told = f"{recipe.rounds} times ({', '.join(repeated)})"
    return ", ".join(told if stage in repeated else stage for stage in shown)


def _last_two(path: str) -> str:
    return ".".join(path.split(".")[-2:])


def _settings(values: Mapping[str, Any]) -> list[str]:
    return [f"{path}={value if isinstance(value, str) else json.dumps(value)}" for path, value in values.items()]

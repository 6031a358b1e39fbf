"""Containers get the keys of the servers that are asked, and no others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines import keys, recipes
from rlhi.config import EngineConfig, ModelConfig, ServerConfig

SECRET = "sk-of-the-judge"


def asking(stage: str, **settings: Any) -> recipes.Recipe:
    """A recipe in which one stage's engine is a server."""
    engine = EngineConfig(kind="openai", model=ModelConfig(id="m"), server=ServerConfig(**settings))
    name = "judge" if stage == "evaluate" else "engine"
    config: Any = recipes.NO_FILTER.stages[stage]
    changed: Any = {stage: replace(config, **{name: engine})}
    return replace(recipes.NO_FILTER, **changed)


@pytest.fixture(autouse=True)
def _shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    monkeypatch.delenv("UNSET_KEY", raising=False)


def test_recipe_that_asks_no_server_takes_no_key_along() -> None:
    assert (keys.variables(recipes.NO_FILTER), keys.files(recipes.NO_FILTER)) == ({}, [])


@pytest.mark.parametrize("stage", ["classify", "evaluate"])
def test_key_of_a_server_that_is_asked_is_taken_along(stage: str) -> None:
    assert keys.variables(asking(stage)) == {"OPENAI_API_KEY": SECRET}
    assert keys.variables(asking(stage, api_key_env="JUDGE_KEY")) == {"JUDGE_KEY": SECRET}
    assert keys.variables(asking(stage, api_key_env="UNSET_KEY")) == {}


def test_file_with_a_key_is_taken_along_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "key"
    assert keys.files(asking("classify", api_key_file=str(file))) == []
    file.write_text(SECRET)
    assert keys.files(asking("classify", api_key_file=str(file))) == [file]
    assert keys.files(asking("classify", api_key_file="key")) == []

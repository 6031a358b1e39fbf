"""The keys of the servers that a run asks, for tasks that do not see this shell and its files: containers."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pipelines.plan import Run
from rlhi.config import EngineConfig, ServerConfig

Kind = TypeVar("Kind")


def variables(run: Run) -> dict[str, str]:
    """Those environment variables with keys that are set here, by name."""
    names = {server.api_key_env for server in _servers(run)}
    return {name: os.environ[name] for name in sorted(names) if name in os.environ}


def files(run: Run) -> list[Path]:
    """The files with keys, for the tasks to read at the paths that their configs name; one that is not there, the task
    itself misses in better words.
    """
    named = {Path(server.api_key_file) for server in _servers(run) if server.api_key_file is not None}
    return sorted(path for path in named if path.is_absolute() and path.is_file())


def _servers(run: Run) -> Iterator[ServerConfig]:
    """Of every engine that asks one; where no server is asked, its settings are nobody's."""
    for config in (config for arm in run.arms for config in arm.stages.values()):
        for engine in engines(config):
            if engine.kind == "openai" or engine.server != ServerConfig():
                yield engine.server


def engines(config: object) -> Iterator[EngineConfig]:
    """Every engine that a config holds."""
    return held(config, EngineConfig)


def held(config: object, kind: type[Kind]) -> Iterator[Kind]:
    """Every value of a type that a config holds, at whatever depth."""
    if isinstance(config, kind):
        yield config
    elif dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            yield from held(getattr(config, field.name), kind)

"""`rlhi STAGE …`: the entry point of every image. Flags derive from the signature of the stage's ``run``."""

import argparse
import importlib
import inspect
import logging
import os
import signal
import sys
import types
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

import rlhi
from rlhi.artifacts import Input, Output
from rlhi.config import Secret, StageConfig, as_dict, from_flag, override, parse, secret_variable
from rlhi.engine.replies import configured
from rlhi.engine.sharded import Shard
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.manifest import is_nobody

STAGES = (
    "ingest",
    "classify",
    "persona",
    "reconstruct",
    "rewrite",
    "sample",
    "reward",
    "rip",
    "dpo",
    "evaluate",
    "benchmark",
    "safety",
    "promote",
    "analyze",
)
AROUND = ("check", "outcome", "comparison", "champion")  # tasks around the stages, with flags of their own
LINT = "lint"
SHARD = (
    "Only ask the model what the users of part I of N need, I from 1, and keep the replies in the store of replies"
    " (RLHI_REPLIES); writes no rows. Run all N, side by side if you like, and then the stage without this flag."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one stage, or lints; 0 on success, 2 after one line on bad input.

    1 is an answer: lint has findings, or promote refuses.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if not sys.warnoptions:  # what libraries say to developers of libraries
        warnings.filterwarnings("ignore", category=FutureWarning)
    if argv is None:  # a process of its own: let a worker that is told to go give back what it has claimed
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] in ("-h", "--help", "--version"):
        sys.stdout.write(_version() if given[:1] == ["--version"] else overview())
        return 0
    try:
        if given[0] in AROUND:
            return int(importlib.import_module(f"rlhi.{given[0]}.task").main(given[1:]))
        if given[0] == LINT:
            return int(_linter().main(given[1:]))
        if given[0] not in STAGES:
            raise InputError(f"{given[0]}: no such stage; one of {', '.join((*STAGES, LINT))}")
        flags = parser(given[0]).parse_args(given[1:])
        call = bind(given[0], flags)
        described = execute(call, flags.executor_input)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    if described.shard is None:
        reasons = ", ".join(f"{reason} {n}" for reason, n in described.dropped.items())
        sys.stderr.write(
            f"{call.stage}: {described.rows_in} in, {described.kept} kept{f' ({reasons})' if reasons else ''}\n"
        )
    return call.config.exit_code(described.dropped)


def overview() -> str:
    """The help of `rlhi` itself: every stage with its first line."""
    lines = [f"  {stage:<12} {_summary(stage)}" for stage in STAGES]
    return "\n".join(
        [
            "usage: rlhi STAGE --INPUT FOLDER … --OUTPUT FOLDER [--FIELD VALUE …]",
            "",
            *lines,
            "",
            "Each stage reads the folders that earlier stages wrote and writes one of its own, complete or not at all.",
            "'rlhi STAGE --help' explains one; 'python -m pipelines' runs them together.",
            "On a cluster 'rlhi check' comes before them and 'rlhi outcome' after them.",
            "'rlhi champion' fetches whom a new model has to beat.",
            "'rlhi comparison' puts the evaluations of several runs side by side.",
            "'rlhi lint FILE' finds in a compiled pipeline what a cluster does not forgive.",
            "",
        ]
    )


def parser(stage: str) -> argparse.ArgumentParser:
    """The flags of one stage: its inputs, its output, and every field of its config."""
    module = _module(stage)
    made = argparse.ArgumentParser(
        prog=f"rlhi {stage}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    paths = made.add_argument_group("data")
    defaults = inspect.signature(_module(stage).run).parameters
    for name, hint in _parameters(stage).items():
        _add_path(paths, name, hint, defaults[name].default)
    settings = made.add_argument_group("settings (JSON values; the paper's where it gives one)")
    settings.add_argument(
        "--config", metavar="JSON", default="{}", help="Fields as one JSON object; flags win over it."
    )
    for path, field, default in settings_of(_config_class(stage)()):
        settings.add_argument(f"--{path}", metavar="VALUE", help=describe(field, default))
    made.add_argument("--shard", metavar="I/N", help=SHARD if _config_class(stage)().asks_models else argparse.SUPPRESS)
    made.add_argument("--executor-input", metavar="JSON", help="What KFP passes; tells where to report the outputs.")
    return made


def bind(stage: str, flags: argparse.Namespace) -> Call:
    """Flags as a call of the stage.

    Raises:
        InputError: an unknown field, a value out of range, an input that is missing or not what the stage reads, or
            a shard that is none.
    """
    given = vars(flags)
    inputs, uris, secrets, output = {}, {}, {}, None
    for name, annotated in _parameters(stage).items():
        hint, optional = _may_miss(annotated)
        origin, records = typing.get_origin(hint), typing.get_args(hint)
        if optional and (given[name] is None or (origin is Input and is_nobody(Path(given[name])))):
            continue
        if origin is Input:
            inputs[name] = Input(Path(given[name]), records[0])
        elif origin is Output:
            output = (name, Output(Path(given[name]).absolute(), records[0]))
        elif hint is Secret:
            secrets[name] = Secret(os.environ.get(secret_variable(name), ""))
        else:
            uris[name] = given[name]
    if output is None:
        raise TypeError(f"{stage}.run has no Output parameter")
    config = _config(stage, given)
    shard = _shard(stage, config, given["shard"])
    return Call(stage, _module(stage).run, inputs, uris, output[0], output[1], config, secrets, shard)


def _shard(stage: str, config: StageConfig, text: str | None) -> Shard | None:
    if text is None:
        return None
    if not config.asks_models:
        raise InputError(f"--shard: {stage} asks no model, so there is nothing to split; leave it out")
    if configured() is None:
        raise InputError(f"--shard {text}: replies have to be kept for the stage to find; set RLHI_REPLIES to a store")
    return Shard.parse(text)


def _config(stage: str, given: dict[str, Any]) -> StageConfig:
    values = from_flag(given["config"])
    usual = _config_class(stage)()
    config = parse(_config_class(stage), _merged(as_dict(usual), values), stage)
    for path, _, _ in settings_of(usual):
        if given[path] is not None:
            config = override(config, path, given[path], stage)
    config.check()
    return config


def _merged(usual: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` over the stage's own defaults, which can differ from those of the nested config's class."""
    merged = {**usual, **given}
    for name, value in given.items():
        if isinstance(value, dict) and isinstance(usual.get(name), dict):
            merged[name] = _merged(usual[name], value)
    return merged


def _add_path(group: Any, name: str, hint: Any, default: Any) -> None:
    flag = f"--{name.replace('_', '-')}"
    hint, optional = _may_miss(hint)
    records = typing.get_args(hint)
    if typing.get_origin(hint) is Input:
        read = f"Read{' if given' if optional else ''}: {records[0].__name__} rows."
        group.add_argument(flag, dest=name, required=not optional, metavar="FOLDER", help=read)
    elif typing.get_origin(hint) is Output:
        group.add_argument(
            flag, dest=name, required=True, metavar="FOLDER", help=f"Written: {records[0].__name__} rows."
        )
    elif hint is not Secret:
        required = default is inspect.Parameter.empty
        usual = None if required else default
        group.add_argument(flag, dest=name, required=required, default=usual, metavar="URI", help=records[1])


def _parameters(stage: str) -> dict[str, Any]:
    """The type of each parameter but the config; ``Input[R] | None`` is an input that need not be given."""
    hints = typing.get_type_hints(_module(stage).run, include_extras=True)
    return {name: hints[name] for name in inspect.signature(_module(stage).run).parameters if name != "config"}


def _may_miss(hint: Any) -> tuple[Any, bool]:
    """A type without its ``None``, and whether it had one."""
    if not _is_union(hint):
        return hint, False
    return next(part for part in typing.get_args(hint) if part is not type(None)), True


def _config_class(stage: str) -> type[StageConfig]:
    found: type[StageConfig] = typing.get_type_hints(_module(stage).run)["config"]
    return found


def settings_of(config: Any, prefix: str = "") -> Iterator[tuple[str, FieldInfo, Any]]:
    """Every leaf field of ``config`` with its dotted path and its value: a flag each."""
    for name, field in type(config).__pydantic_fields__.items():
        value = getattr(config, name)
        if is_dataclass(value):
            yield from settings_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, value


def describe(field: FieldInfo, default: Any) -> str:
    """The help of one setting's flag."""
    choices = _choices(field.annotation)
    shown = f" One of {', '.join(choices)}." if choices else ""
    return f"{field.description or ''}{shown} [{default}]".replace("%", "%%")


def _choices(hint: Any) -> list[str]:
    """The values of a Literal, or of a union of them."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    return [choice for part in typing.get_args(hint) for choice in _choices(part)] if _is_union(hint) else []


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _module(stage: str) -> Any:
    return importlib.import_module(f"rlhi.{stage}.stage")


def _linter() -> Any:
    """Imported when asked for: no stage needs what it needs."""
    return importlib.import_module("rlhi.lint.command")


def _summary(stage: str) -> str:
    return (_module(stage).__doc__ or "").strip().splitlines()[0]


def _version() -> str:
    return f"rlhi {rlhi.__version__}\n"


if __name__ == "__main__":
    sys.exit(main())

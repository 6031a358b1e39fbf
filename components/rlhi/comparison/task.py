"""The command line of comparison: which folder is of which arm. How it is compared, `rlhi.comparison.stage` says."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from rlhi.artifacts import Input, Output
from rlhi.comparison import stage
from rlhi.comparison.config import ComparisonConfig
from rlhi.comparison.measured import ArmFigure
from rlhi.config import from_flag, override, parse
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.records import Grade, Pair, Verdict

READ: Mapping[str, tuple[str, Any, str]] = {  # what of an arm is read: by which stage it was made, its rows, its help
    "verdicts": ("evaluate", Verdict, "Outputs of evaluate, one for each arm."),
    "pairs": ("rip", Pair, "What an arm's model learned from: an output of rip. For each arm."),
    "model": ("dpo", Pair, "An arm's model: an output of dpo. For each arm."),
    "answers": ("benchmark", Grade, "An arm's answers to benchmarks: an output of benchmark. For each arm."),
}
FLAGS = tuple(READ)[1:]  # those of verdicts stand alone
MEASURED = ("verdicts", "answers")  # without either there is no arm
SETTINGS = ("name", "baseline", "resamples", "seed")


def main(argv: Sequence[str]) -> int:
    """``rlhi comparison``: 0 when the arms are compared.

    Raises:
        InputError: bad input; the message names it and the way out.
    """
    flags = parser().parse_args(argv)
    call = bind(flags)
    described = execute(call, flags.executor_input)
    sys.stderr.write(f"comparison: {described.kept} figures, {call.output.path / 'report.html'}\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The flags of ``rlhi comparison``."""
    made = argparse.ArgumentParser(
        prog="rlhi comparison", description=stage.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("verdicts", metavar="[ARM=]FOLDER", nargs="*", help=READ["verdicts"][2])
    for name in FLAGS:
        made.add_argument(f"--{name}", metavar="ARM=FOLDER", action="append", default=[], help=READ[name][2])
    made.add_argument("--comparison", metavar="FOLDER", required=True, help="Written: ArmFigure rows and report.html.")
    made.add_argument("--config", metavar="JSON", default="{}", help="Settings as one JSON object; flags win over it.")
    for name, field in ComparisonConfig.__pydantic_fields__.items():  # type: ignore[attr-defined]
        if name in SETTINGS:
            made.add_argument(f"--{name}", metavar="VALUE", help=field.description)
    made.add_argument("--executor-input", metavar="JSON", help="What KFP passes; tells where to report the outputs.")
    return made


def bind(flags: argparse.Namespace) -> Call:
    """Flags as a call of the stage: an input of arm i, from 1, is ``verdicts_i``, ``pairs_i`` and so on.

    Raises:
        InputError: a setting or an arm that cannot be, or an output of another stage.
    """
    given = {"verdicts": named(flags.verdicts), **{name: _of_arms(name, getattr(flags, name)) for name in FLAGS}}
    config = _config(flags, tuple(dict.fromkeys(arm for name in MEASURED for arm in given[name])))
    inputs: dict[str, Input[Any]] = {}
    for name, folders in given.items():
        for arm, path in folders.items():
            if arm not in config.arms:
                raise InputError(f"--{name} {arm}={path}: there is no such arm; one of {', '.join(config.arms)}")
            inputs[f"{name}_{config.arms.index(arm) + 1}"] = _input(path, name)
    output = Output(Path(flags.comparison).absolute(), ArmFigure)
    return Call("comparison", stage.run, inputs, {}, "comparison", output, config, apart=True)


def _config(flags: argparse.Namespace, given: tuple[str, ...]) -> ComparisonConfig:
    values = from_flag(flags.config)
    config = parse(ComparisonConfig, values, "comparison")
    for name in SETTINGS:
        if getattr(flags, name) is not None:
            config = override(config, name, getattr(flags, name), "comparison")
    config = replace(config, arms=_arms(config, given))
    config.check()
    return config


def _arms(config: ComparisonConfig, given: tuple[str, ...]) -> tuple[str, ...]:
    if config.arms and set(config.arms) != set(given):
        told = f"{', '.join(config.arms)}, but evaluations or answers are of {', '.join(given)}"
        raise InputError(f"comparison.arms: {told}; give one for each")
    if len(given) < 2:
        only = f"{given[0]}: there is nothing to compare it with" if given else "there is nothing to compare"
        raise InputError(f"{only}; give two outputs of evaluate or more")
    return config.arms or given


def _input(path: Path, name: str) -> Input[Any]:
    made_by, record, _ = READ[name]
    found: Input[Any] = Input(path, record)
    if found.manifest.stage != made_by:
        raise InputError(f"{path}: is an output of {found.manifest.stage}; give one of {made_by}")
    return found


def _of_arms(flag: str, given: Iterable[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in given:
        arm, separator, path = text.partition("=")
        if not separator:
            raise InputError(f"--{flag} {text}: of which arm is it? Write ARM={text}")
        if arm in found:
            raise InputError(f"--{flag} {text}: {arm} has {found[arm]} already; give one for each arm")
        found[arm] = Path(path)
    return found


def named(folders: Sequence[str]) -> dict[str, Path]:
    """Each folder by its arm's name: what was given, or else what tells its path from the others'.

    Raises:
        InputError: two of one name.
    """
    split = [_split(folder) for folder in folders]
    short = _short([path for _, path in split])
    found: dict[str, Path] = {}
    for (name, path), usual in zip(split, short, strict=True):
        if (name or usual) in found:
            raise InputError(f"{path}: is called {name or usual!r}, as {found[name or usual]}; give it another ARM=")
        found[name or usual] = path
    return found


def _split(folder: str) -> tuple[str, Path]:
    name, found, path = folder.partition("=")
    return (name, Path(path)) if found and not Path(folder).exists() else ("", Path(folder))


def _short(paths: Sequence[Path]) -> list[str]:
    """The paths without what all of them begin and end with."""
    parts = [path.absolute().parts for path in paths]
    head = _common(parts)
    tail = _common([own[head:][::-1] for own in parts])
    return ["-".join(own[head : len(own) - tail]) or paths[place].name for place, own in enumerate(parts)]


def _common(parts: Sequence[Sequence[str]]) -> int:
    """How many parts all of them begin with."""
    return len(list(takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False))))

"""What a human study keeps and gets back: the maker's key, and one sheet of choices for each person.

Both are JSON. A sheet says of each numbered turn which answer, A or B, the person found better; only the key tells
whose answer that was.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED
from rlhi.errors import InputError
from rlhi.records import Axis, Mode, Opponent

Choice = Literal["A", "B", "neither"]
F = TypeVar("F")


@dataclass(frozen=True, config=CLOSED)
class Item:
    """One turn on a person's page, and the letter that the evaluated model's answer has there."""

    turn_id: str
    user_id: str
    ours: Literal["A", "B"]


@dataclass(frozen=True, config=CLOSED)
class Key:
    """What the maker keeps: whose answers were shown where, and what the judge said of them.

    ``persons`` holds each person's items in the order of the page. ``judged`` is turn id to axis to the judge's score
    of the model's answer in [0, 1]; a turn or axis without a readable verdict is absent.
    """

    study: str
    opponent: Opponent
    mode: Mode
    axes: tuple[Axis, ...]
    judge: str
    persons: tuple[tuple[Item, ...], ...]
    judged: dict[str, dict[Axis, float]]


@dataclass(frozen=True, config=CLOSED)
class Sheet:
    """What one person chose: the number of the turn on the page, from 1, to axis to choice."""

    study: str
    person: Annotated[int, Field(ge=1)]
    choices: dict[int, dict[Axis, Choice]]


def read_key(path: Path) -> Key:
    """The maker's key.

    Raises:
        InputError: no such file, or no key.
    """
    return _read(path, Key, "give the file that 'make' wrote as --key")


def read_sheets(paths: list[Path], key: Key) -> list[Sheet]:
    """The sheets, each from one person of the study.

    Raises:
        InputError: a file is no sheet, belongs to another study, names what its page does not hold, or two are of the
            same person.
    """
    sheets: dict[int, tuple[Path, Sheet]] = {}
    for path in paths:
        sheet = _read(path, Sheet, "give a file that a page of the study saved")
        _check(path, sheet, key)
        if sheet.person in sheets:
            raise InputError(f"{path}: person {sheet.person}, as {sheets[sheet.person][0]}; give one file a person")
        sheets[sheet.person] = (path, sheet)
    return [sheet for _, (_, sheet) in sorted(sheets.items())]


def _check(path: Path, sheet: Sheet, key: Key) -> None:
    if sheet.study != key.study:
        raise InputError(f"{path}: study {sheet.study!r}, the key is of {key.study!r}; give the key of this study")
    if sheet.person > len(key.persons):
        raise InputError(f"{path}: person {sheet.person}, the study has {len(key.persons)}; give the key of this study")
    shown = len(key.persons[sheet.person - 1])
    for number, chosen in sheet.choices.items():
        if not 1 <= number <= shown:
            raise InputError(f"{path}: choices.{number}: the page holds turns 1 to {shown}; do not edit the file")
        if other := [axis for axis in chosen if axis not in key.axes]:
            raise InputError(f"{path}: choices.{number}.{other[0]}: the study asks for {', '.join(key.axes)} only")


def _read(path: Path, cls: type[F], way_out: str) -> F:
    try:
        values: Any = orjson.loads(path.read_bytes())
        if not isinstance(values, Mapping):
            raise InputError(f"{path}: expected a JSON object, got {type(values).__name__}; {way_out}")
        return TypeAdapter(cls).validate_python(values)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {way_out}") from None
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); {way_out}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        raise InputError(f"{path}: {field}: {problem['msg']}, got {problem['input']!r:.60}; {way_out}") from None

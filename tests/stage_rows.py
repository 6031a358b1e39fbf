"""Outputs of earlier stages for tests, written as a stage writes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from rlhi.artifacts import Input, Output
from rlhi.config import StageConfig
from rlhi.execute import Call, execute

R = TypeVar("R")


def write_rows(folder: Path, record: type[R], rows: Sequence[R]) -> Input[R]:
    """A complete output with these rows."""

    def make(out: Output[R], config: StageConfig) -> None:
        out.write(rows, [], len(rows))

    execute(Call("made", make, {}, {}, "out", Output(folder, record), StageConfig()))
    return Input(folder, record)

"""Puts several evaluations side by side in one page: the same turns, the same judge, and how they differ.

Each FOLDER is an output of evaluate; its name on the page is what tells its path from the others', or NAME=FOLDER. The
first is the one that the others are held against, turn by turn, with an interval and a paired test. Turns that not all
of them judged are left out, and the page says how many. Evaluations whose judges, or the way these were asked, differ
are refused.

The page quotes users. No list of users lies beside it: delete it when it has been looked at.

example:
  python -m rlhi.evaluate.compare base=out/a/evaluate/verdicts rlhi=out/b/evaluate/verdicts --out compared.html
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from rlhi.errors import InputError, one_line
from rlhi.evaluate.compared import render
from rlhi.evaluate.comparison import compare


@one_line
def main(argv: Sequence[str] | None = None) -> int:
    """0 when the page is written, 2 after one line on bad input."""
    given = parser().parse_args(argv)
    found = compare(named(given.folders))
    _write(given.out, render(found))
    sys.stdout.write(f"{given.out}: {len(found.arms)} evaluations on {len(found.turns)} common turns\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m rlhi.evaluate.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("folders", metavar="[NAME=]FOLDER", nargs="+", help="Outputs of evaluate, two or more.")
    made.add_argument("--out", metavar="FILE", type=Path, required=True, help="Where the page goes.")
    return made


def named(folders: Sequence[str]) -> dict[str, Path]:
    """Each folder by its name.

    Raises:
        InputError: fewer than two, or two of one name.
    """
    if len(folders) < 2:
        raise InputError(f"{folders[0]}: there is nothing to compare it with; give two outputs of evaluate or more")
    split = [_split(folder) for folder in folders]
    short = _short([path for _, path in split])
    found: dict[str, Path] = {}
    for (name, path), usual in zip(split, short, strict=True):
        if (name or usual) in found:
            raise InputError(f"{path}: is called {name or usual!r}, as {found[name or usual]}; give it another NAME=")
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
    return ["/".join(own[head : len(own) - tail]) or paths[place].name for place, own in enumerate(parts)]


def _common(parts: Sequence[Sequence[str]]) -> int:
    """How many parts all of them begin with."""
    return len(list(takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False))))


def _write(out: Path, page: str) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None


if __name__ == "__main__":
    sys.exit(main())

"""Asks people which of two answers they would rather have, and reads what they say.

'make' writes one page for each person into OUT, and a key that tells whose answer is whose: keep it, and hand out the
pages alone. A page is one file that opens anywhere and sends nothing; it saves the choices as a JSON file, which the
person sends back. 'read' turns these files and the key into win rates with intervals over the log's users, and tells
how far people agree with each other and with the judge.

The pages quote users, and the key names them. No list of users lies beside them: delete them when the study is over.

example:
  python -m rlhi.evaluate.study make --verdicts out/latest/evaluate/verdicts --out pages --key key.json
  python -m rlhi.evaluate.study read back/*.json --key key.json
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import orjson

from rlhi.argv import positive
from rlhi.config import as_dict
from rlhi.errors import InputError, one_line
from rlhi.evaluate.results import judge_of, load
from rlhi.evaluate.study.make import Plan, comparisons, make
from rlhi.evaluate.study.results import results, told
from rlhi.evaluate.study.sheets import Key, read_key, read_sheets
from rlhi.page import counted
from rlhi.records import Axis, Mode, Opponent


@one_line
def main(argv: Sequence[str] | None = None) -> int:
    """0 when it is done, 2 after one line on bad input."""
    given = parser().parse_args(argv)
    sys.stdout.write(given.do(given))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m rlhi.evaluate.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(required=True)
    making = commands.add_parser("make", help="Write a page for each person, and the key.")
    making.set_defaults(do=_make)
    making.add_argument("--verdicts", metavar="FOLDER", type=Path, required=True, help="Output of evaluate.")
    making.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="Where the pages go.")
    making.add_argument("--key", metavar="FILE", type=Path, required=True, help="Where the key goes; keep it.")
    making.add_argument("--persons", metavar="N", type=positive, default=10, help="How many people. (3.4) [10]")
    making.add_argument("--turns", metavar="N", type=positive, default=50, help="Turns for each. (3.4) [50]")
    making.add_argument(
        "--shared", metavar="N", type=positive, default=10, help="Turns that all of them see, for agreement. [10]"
    )
    making.add_argument(
        "--axis", action="append", choices=get_args(Axis), help="What is asked, once or more. (3.4) [usereval]"
    )
    making.add_argument("--opponent", choices=get_args(Opponent), default="log", help="Whose answer ours meets. [log]")
    making.add_argument("--mode", choices=get_args(Mode), default="persona-guided", help="[persona-guided]")
    making.add_argument("--seed", metavar="N", type=int, default=0, help="Of turns, their order, and the sides. [0]")
    reading = commands.add_parser("read", help="Turn the files that came back into win rates.")
    reading.set_defaults(do=_read)
    reading.add_argument("sheets", metavar="JSON", type=Path, nargs="+", help="What the pages saved.")
    reading.add_argument("--key", metavar="FILE", type=Path, required=True, help="What 'make' wrote.")
    return made


def _make(given: argparse.Namespace) -> str:
    if given.key.absolute().is_relative_to(given.out.absolute()):
        raise InputError(f"--key {given.key}: lies among the pages, which are handed out; put it elsewhere")
    axes = tuple(given.axis or ("usereval",))
    plan = Plan(given.persons, given.turns, given.shared, axes, given.opponent, given.mode, given.seed)
    evaluation = load(given.verdicts)
    found = comparisons(evaluation.contests, evaluation.verdicts, plan)
    pages, key = make(found, plan, judge_of(given.verdicts))
    _write(given.out, pages, given.key, key)
    seen = len({item.turn_id for items in key.persons for item in items})
    return (
        f"{counted(len(pages), 'page')} in {given.out}, each with {counted(len(key.persons[0]), 'turn')}; "
        f"together {seen} of {counted(len(found), 'turn')} that have two different answers\n"
        f"{given.key}: whose answer is whose; keep it\n"
    )


def _read(given: argparse.Namespace) -> str:
    key = read_key(given.key)
    return told(results(read_sheets(given.sheets, key), key), key)


def _write(out: Path, pages: Sequence[str], key_path: Path, key: Key) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for person, page in enumerate(pages, 1):
            (out / f"person-{person:02}.html").write_text(page)
        key_path.parent.mkdir(parents=True, exist_ok=True)
        key_path.write_bytes(orjson.dumps(as_dict(key), option=orjson.OPT_INDENT_2))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be written ({error.strerror}); choose another place") from None


if __name__ == "__main__":
    sys.exit(main())

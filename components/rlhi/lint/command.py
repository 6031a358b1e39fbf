"""The command line of `rlhi lint`."""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from rlhi.argv import Parser
from rlhi.errors import InputError
from rlhi.lint import data, running, secrets
from rlhi.lint.findings import Finding, Rule
from rlhi.lint.pipeline import Task, load

RULES = (*running.RULES, *secrets.RULES, *data.RULES)
ABOUT = """\
Finds in a compiled KFP pipeline what a cluster does not forgive. FILE is what KFP's compiler writes, for instance
'python -m pipelines compile RECIPE -o FILE'; any pipeline will do.
Exit code: 0 without findings, 1 with findings, 2 on bad input.
"""


def main(argv: Sequence[str]) -> int:
    """Prints what is found; 1 if anything is, else 0.

    Raises:
        InputError: a file that holds no pipeline, or no such rule.
    """
    given = parser().parse_args(argv)
    found = [(path, finding) for path in given.files for finding in lint(load(path), given.ignore)]
    sys.stdout.write(FORMATS[given.format](found))
    return 1 if found else 0


def lint(pipeline: Task, ignore: Iterable[str] = ()) -> list[Finding]:
    """What the rules but those of ``ignore`` find in a pipeline, by its root.

    Raises:
        InputError: a rule to ignore that there is not.
    """
    ignored = set(ignore)
    names = [rule.name for rule in RULES]
    if unknown := ignored.difference(names):
        raise InputError(f"--ignore {min(unknown)}: no such rule; one of {', '.join(names)}")
    return [
        Finding(rule.name, task.path if task.parent else "pipeline", problem, rule.way_out)
        for rule in RULES
        if rule.name not in ignored
        for task, problem in rule.check(pipeline)
    ]


def parser() -> argparse.ArgumentParser:
    """The flags, and every rule in the help."""
    made = Parser(
        prog="rlhi lint",
        description=ABOUT,
        epilog="rules:\n" + "\n".join(map(_explained, RULES)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("files", metavar="FILE", type=Path, nargs="+", help="A compiled pipeline, YAML or JSON.")
    made.add_argument(
        "--ignore", metavar="RULE", action="append", default=[], help="Leave out a rule; give it again for more."
    )
    made.add_argument(
        "--format", choices=[*FORMATS], default="text", help="text, json, or github for annotations in its CI. [text]"
    )
    return made


def _explained(rule: Rule) -> str:
    paragraphs = (rule.why, f"Way out: {rule.way_out}.")
    lines = [textwrap.fill(text, 110, initial_indent=" " * 6, subsequent_indent=" " * 6) for text in paragraphs]
    return "\n".join((f"  {rule.name}", *lines))


def _text(found: Sequence[tuple[Path, Finding]]) -> str:
    lines = [f"{path}: {each.task}: {each.rule}: {each.problem}; {each.way_out}" for path, each in found]
    return "".join(f"{line}\n" for line in (*lines, _counted(len(found))))


def _counted(n: int) -> str:
    return f"{n or 'no'} finding{'' if n == 1 else 's'}"


def _json(found: Sequence[tuple[Path, Finding]]) -> str:
    return json.dumps([{"file": str(path), **each.as_dict()} for path, each in found], indent=2) + "\n"


def _github(found: Sequence[tuple[Path, Finding]]) -> str:
    return "".join(
        f"::error file={path},title={each.rule}::{_escaped(f'{each.task}: {each.problem}; {each.way_out}')}\n"
        for path, each in found
    )


def _escaped(message: str) -> str:
    return message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


FORMATS = {"text": _text, "json": _json, "github": _github}

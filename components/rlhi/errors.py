"""The one exception that a user is meant to read."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


class InputError(Exception):
    """Something the user gave cannot be used. The message names the value and the way out.

    The command line prints it as one line and exits with 2; anything else that is raised is a defect of ours and keeps
    its traceback.
    """


def one_line(command: Callable[P, int]) -> Callable[P, int]:
    """A command that tells an `InputError` as one line, and returns 2 for it."""

    @wraps(command)
    def teller(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return command(*args, **kwargs)
        except InputError as error:
            sys.stderr.write(f"error: {error}\n")
            return 2

    return teller

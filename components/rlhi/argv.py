"""What several commands take from their command lines."""

import argparse
import math
from typing import NoReturn

from rlhi.errors import InputError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        """Raises it."""
        raise InputError(f"{message}; see '{self.prog} --help'")


def positive(text: str) -> int:
    """A whole number of 1 or more, for argparse.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return int(text)


def rate(text: str) -> float:
    """A number above 0, for argparse.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return found

"""What style control looks at in an answer: its length and its Markdown, outside blocks of code."""

import re
from typing import NamedTuple

CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
ITEM = re.compile(r"^[ \t]*(?:\d+\.|[-*+])\s", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


class Style(NamedTuple):
    """Characters of the whole answer; headers, list items and bold passages outside code."""

    length: int
    headers: int
    items: int
    bold: int


def style_of(answer: str) -> Style:
    """The style of one answer."""
    text = CODE.sub("", answer)
    return Style(len(answer), *(len(mark.findall(text)) for mark in (HEADER, ITEM, BOLD)))

"""Whether two final answers to a mathematical problem are surely the same.

Written forms of one value meet: fractions, decimals, mixed numbers, thousands, LaTeX's spacing and wrappers, units, the
letter that is solved for; lists, points and intervals item by item. Nothing is computed beyond that, so that
``1+2\\sqrt{3}`` and ``2\\sqrt{3}+1`` are not the same: what is not sure is not.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 200  # characters; what is longer is an explanation
_UNITS = {
    "degrees": r"^\circ \circ ^\degree \degree ° degree degrees",
    "percent": r"% \% percent",
    "dollars": "dollar dollars",
    "cents": "cent cents",
    "mm": "mm millimeter millimeters",
    "cm": "cm centimeter centimeters",
    "m": "meter meters",
    "km": "km kilometer kilometers",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "miles": "mile miles",
    "mph": "mph milesperhour",
    "s": "sec second seconds",
    "min": "min minute minutes",
    "h": "hr hour hours",
    "days": "day days",
    "weeks": "week weeks",
    "years": "year years",
    "units": "unit units",
    "units^2": "squareunit squareunits unit^2 units^2",
    "units^3": "cubicunit cubicunits unit^3 units^3",
}  # no single letters as forms: 5m can be a product
UNITS = {form: unit for unit, forms in _UNITS.items() for form in forms.split()}
_REWRITTEN = [
    (r",\\!\s*", ","),
    (r"(?<!\\)\$|\\[()\[\]]", ""),
    (r"\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[,;!:>]", ""),
    (r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}", r"\1"),
    (r"\\ |~|\\q?quad", " "),
    (r"\\[dtc]frac", r"\\frac"),
    (r"\{,\}", ","),
    (r"[−–]", "-"),
    (r"≤|\\leq(?![a-zA-Z])", r"\\le"),
    (r"≥|\\geq(?![a-zA-Z])", r"\\ge"),
    (r"π", r"\\pi"),
    (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
    (r"\\sqrt\s*(\w)", r"\\sqrt{\1}"),
    (r"\^\(([^()]*)\)", r"^{\1}"),
    (r"([\^_])\{(\w|\\circ)\}", r"\1\2"),
]
_THOUSANDS = re.compile(r"(?:\\\$)?[+-]?\d{1,3}(?:,\d{3})+(?![\d,])", re.ASCII)
_FRACTION = r"(?:\\frac\{(-?\d+)\}\{(-?\d+)\}|(?<!\d)(\d+)/(\d+))"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)(?P<mixed>\d+ ?(?=\\frac|\d+/))?{_FRACTION}|(?P<decimal>[+-]?(?:\d+(?:\.\d*)?|\.\d+))", re.ASCII
)
_NAMED = re.compile(r"([a-zA-Z](?:\([a-zA-Z]\))?)(?:=|\\in(?![a-zA-Z]))([^=]+)")
_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True)
class _Item:
    """One answer as it is compared: a list holds its items, in order, with the brackets around them."""

    value: "Fraction | str | tuple[_Item, ...]"
    name: str = ""
    unit: str = ""
    brackets: str = ""


def same_answer(given: str, truth: str) -> bool:
    """Whether both surely say the same. A unit or a letter on one side only is no difference."""
    if max(len(given), len(truth)) > LONGEST:
        return False
    one, other = _read(_plain(given)), _read(_plain(truth))
    return one.value != "" and _agree(one, other)


def last_boxed(text: str) -> str | None:
    r"""What the last ``\boxed{…}`` holds; null where there is none or it is not closed."""
    start = text.rfind("\\boxed{") + len("\\boxed{")
    if start < len("\\boxed{"):
        return None
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return None


def _agree(one: _Item, other: _Item) -> bool:
    if any(a and b and a != b for a, b in ((one.name, other.name), (one.unit, other.unit))):
        return False
    if isinstance(one.value, tuple) and isinstance(other.value, tuple):
        alike = one.brackets == other.brackets and len(one.value) == len(other.value)
        return alike and all(map(_agree, one.value, other.value))
    return one.value == other.value


def _plain(text: str) -> str:
    text = last_boxed(text) or text
    for form, better in _REWRITTEN:
        text = re.sub(form, better, text)
    text = re.sub(r",\s+", ";", " ".join(text.split()).removesuffix("."))
    return re.sub(r"(?<!\d) | (?!\d)", "", text)  # between digits a space tells 1 1/2 from 11/2


def _read(text: str) -> _Item:
    named = _NAMED.fullmatch(text)
    name, text = (named[1], named[2]) if named else ("", text)
    thousands = _THOUSANDS.match(text)
    if thousands and "," not in text[thousands.end() :]:
        text = text.replace(",", "")
    items = _split(text)
    if len(items) > 1:
        return _Item(tuple(map(_read, items)), name)
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]" and _closes_at_the_end(text):
        inner = _split(text[1:-1])
        if len(inner) > 1:
            return _Item(tuple(map(_read, inner)), name, brackets=text[0] + text[-1])
        return _Item(_read(text[1:-1]).value, name) if text[0] == "(" else _Item(text, name)
    return _quantity(text, name)


def _split(text: str) -> list[str]:
    """Parts between the commas that no bracket encloses; a comma before a space parts, else every one."""
    mark, depth, parts = (";" if ";" in text else ","), 0, [""]
    for letter in text:
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if letter == mark and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _closes_at_the_end(text: str) -> bool:
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if depth == 0:
            return place == len(text) - 1
    return False


def _quantity(text: str, name: str) -> _Item:
    dollars = text.startswith("\\$")
    number = _NUMBER.match(text.removeprefix("\\$"))
    rest = text.removeprefix("\\$")[number.end() :] if number else ""
    unit = "dollars" if dollars and not rest else _unit(rest)
    value = _fraction(number) if number and unit is not None else None
    if value is None:
        return _Item(text if text.isupper() or not text.isalpha() else text.lower(), name)
    return _Item(value, name, unit or "")


def _unit(rest: str) -> str | None:
    """The unit after a number: empty where nothing follows, null where it is none that is known."""
    form, power = (rest[:-2], rest[-2:]) if rest.endswith(("^2", "^3")) else (rest, "")
    if not rest:
        return ""
    return UNITS.get(rest) or (UNITS[form] + power if form in UNITS else None)


def _fraction(number: re.Match[str]) -> Fraction | None:
    if number["decimal"]:
        return Fraction(number["decimal"].removesuffix("."))
    above, below = (int(part) for part in number.groups()[2:6] if part is not None)
    if below == 0:
        return None
    size = Fraction(above, below) + int(number["mixed"] or 0)
    return -size if number["sign"] == "-" else size

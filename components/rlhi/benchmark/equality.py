r"""Whether a given final answer to a mathematical problem is the gold one: math-verify, and what it reads wrongly.

Lists and points are compared part by part, since math-verify reads a list as a set, in which a part counts once.
Numbers are compared here, since it rounds them to six decimals, where all of physics' small ones are 0. What is left,
formulas and equations, is its own. Repaired before it reads: ``4.5e33`` (it takes e for Euler's number), ``-1./3``,
names and stars of Python's, dollars within. Kept from it: variables that it takes for units, as the m of
``\frac{37}{4} m``, and those that it takes for a function or reads not at all, ``\gamma`` and ``E_0``.

Runs in processes of its own, see `rlhi.benchmark.checking`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from typing import Any

import sympy
from math_verify import LatexExtractionConfig, parse, verify

from rlhi.ingest.answers import same_answer

DIGITS = 30  # to which numbers are computed
# behind a number alone is a letter a unit, as in 5 m; behind a formula it is a variable
BARE = LatexExtractionConfig(normalization_config=replace(LatexExtractionConfig().normalization_config, units=False))
WITH_UNIT = LatexExtractionConfig()
REPAIRS = (
    (r",\s*\\!\s*", ","),
    (r"(?<!\\)\$|\\(?:left|right|displaystyle|quad|qquad)(?![a-zA-Z])|\\[,;!:>()]|\\[\[\]]", " "),
    (r"\\[dt]frac", r"\\frac"),
    (r"[−–]", "-"),
    (r"\{,\}", ","),
    (r"\bnp\.(?=arc|sin|cos|tan|exp|log|sqrt|pi)", r"\\"),
    (r"(?<![a-zA-Z0-9.\\])(\d+\.?\d*|\.\d+)[eE]([+-]?\d+)(?![a-zA-Z0-9])", r"\1 \\times 10^{\2}"),
    (r"(\d)\.(?=\s*[/*+)}]|\s*$)", r"\1"),
    (r"(?<![a-zA-Z\\])E(?=_)", r"\\Xi"),
    (r"\\gamma(?![a-zA-Z])", r"\\upsilon "),
    (r"(?<=[\w)}])\s*\*\s*(?=[\w({\\])", " "),
)
WORDS = re.compile(r"\\(?:text|mathrm|textrm|mbox)\s*\{\s*(?:and|or)\s*\}|\b(?:and|or)\b|;")
UNIT = re.compile(r"(?<=[\d})\]])[\s~]*\\(?:text|mathrm|textrm|mbox|operatorname)\s*\{.*$", re.DOTALL)
THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?![\d,])")
EQUALS = re.compile(r"(?<![<>!\\])=")
OPEN, CLOSE = "([{", ")]}"


def equal(gold: str, given: str, absolute: float, relative: float) -> bool:
    """Whether ``given`` says what ``gold`` says; numbers may differ by ``absolute``, or by ``relative`` of the gold."""
    return same_answer(given, gold) or _Equality(absolute, relative).of(_repaired(gold), _repaired(given))


class _Equality:
    def __init__(self, absolute: float, relative: float) -> None:
        self.absolute, self.relative = absolute, relative

    def of(self, gold: str, given: str) -> bool:
        """Of two repaired texts."""
        golds, givens = _parts(gold), _parts(given)
        if len(golds) > 1 or len(givens) > 1:
            return self._in_any_order(golds, givens)
        (gold,), (given,) = golds, givens
        one, other = _inside(gold), _inside(given)
        if one and other:
            return gold[0] + gold[-1] == given[0] + given[-1] and self._in_order(one, other)
        return self._single(gold, given)

    def _in_any_order(self, golds: Sequence[str], givens: Sequence[str]) -> bool:
        left = list(givens)
        for gold in golds:
            found = next((place for place, given in enumerate(left) if self.of(gold, given)), None)
            if found is None:
                return False
            del left[found]
        return not left

    def _in_order(self, golds: Sequence[str], givens: Sequence[str]) -> bool:
        return len(golds) == len(givens) and all(map(self.of, golds, givens))

    def _single(self, gold: str, given: str) -> bool:
        """Of two numbers, formulas, equations or texts; a name or a unit on one side only is no difference."""
        if "".join(gold.split()) == "".join(given.split()) or same_answer(given, gold):
            return True
        if len(EQUALS.findall(gold)) != len(EQUALS.findall(given)):
            gold, given = EQUALS.split(gold)[-1], EQUALS.split(given)[-1]
        gold, given = UNIT.sub("", gold), UNIT.sub("", given)
        one = _read(gold, BARE)
        number = _number(one)
        if number is None:
            return bool(verify([one], [_read(given, BARE)], timeout_seconds=None))
        other = _number(_read(given, WITH_UNIT))
        return other is not None and bool(abs(number - other) <= self.absolute + self.relative * abs(number))


@lru_cache(maxsize=1024)
def _repaired(text: str) -> str:
    for form, better in REPAIRS:
        text = re.sub(form, better, text)
    return " ".join(text.split()).removesuffix(".").strip()


def _parts(text: str) -> list[str]:
    """Parts between the commas that no bracket encloses, and between "and" and "or"."""
    thousands = THOUSANDS.match(text)
    if thousands and "," not in text[thousands.end() :]:
        return [text.replace(",", "")]
    depth, parts = 0, [""]
    for letter in WORDS.sub(",", text):
        depth += (letter in OPEN) - (letter in CLOSE)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()] or [""]


def _inside(text: str) -> list[str]:
    """The parts between the brackets around a point or an interval; none where there are no two."""
    inner = text[1:-1]
    depths = accumulate((letter in OPEN) - (letter in CLOSE) for letter in inner)
    if text[:1] not in ("(", "[") or text[-1:] not in (")", "]") or min(depths, default=-1) < 0:
        return []
    parts = _parts(inner)
    return parts if len(parts) > 1 else []


@lru_cache(maxsize=1024)
def _read(text: str, config: LatexExtractionConfig) -> Any:
    """What math-verify makes of a formula: an expression, or the text where it makes nothing of it."""
    found = parse(f"${text}$", [config], parsing_timeout=None)
    return found[0] if found else text


def _number(expression: Any) -> Any:
    """The value of an expression without variables, to `DIGITS` digits; null for others."""
    if not isinstance(expression, sympy.Expr) or expression.free_symbols or not expression.is_number:
        return None
    exact = expression.xreplace({each: sympy.Rational(str(each)) for each in expression.atoms(sympy.Float)})
    value = exact.doit().evalf(DIGITS)
    return value if value.is_finite and value.is_number else None

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi.ingest.answers import last_boxed, same_answer

GOLDS = Path(__file__).parents[2] / "shared" / "data" / "bench" / "olympiadbench.jsonl"

SAME = [
    ("7,200", "7200"),
    ("7{,}200", "7200"),
    ("11,\\! 111,\\! 100", "11111100"),
    ("28{,}800 \\text{ units}", "28800"),
    ("7200.", "7200"),
    ("$7200$", "7200"),
    ("\\(7200\\)", "7200"),
    ("\\boxed{7200}", "7200"),
    ("007", "7"),
    ("+5", "5"),
    ("1.50", "1.5"),
    (".5", "0.5"),
    ("\\frac{1}{2}", "0.5"),
    ("\\dfrac12", "1/2"),
    ("\\frac{10}{20}", "\\frac{1}{2}"),
    ("-\\frac{3}{4}", "\\frac{-3}{4}"),
    ("2\\frac{1}{2}", "2.5"),
    ("2 1/2", "\\frac52"),
    ("\\sqrt3", "\\sqrt{3}"),
    ("2^(m+1)", "2^{m+1}"),
    ("x^{2} + 1", "x^2+1"),
    ("2 \\, \\pi", "2π"),
    ("90^\\circ", "90"),
    ("90^{\\circ}", "90 degrees"),
    ("5 \\text{ cm}", "5"),
    ("5\\text{ cm}^2", "5 \\text{ cm}^{2}"),
    ("\\$29", "29"),
    ("\\$1,000", "1000 \\text{ dollars}"),
    ("50\\%", "50"),
    ("x = 5", "5"),
    ("x \\in [1, 2]", "[1,2]"),
    ("\\left(\\frac12, 3\\right)", "(0.5,3)"),
    ("8, 3, 1", "8,3,1"),
    ("1,000, 2,000", "1000, 2000"),
    ("\\text{Friday}", "friday"),
    ("\\text{Friday}.", "Friday"),
    ("\\text{(A)}", "A"),
]

NOT_SURELY_THE_SAME = [
    ("", ""),
    ("$", "$"),
    ("72", "7200"),
    ("3", "-3"),
    ("1 1/2", "11/2"),
    ("12", "1 2"),
    ("12/5", "1/25"),
    ("\\frac{1}{0}", "0"),
    ("\\frac{1}{2}x", "\\frac{1}{2}"),
    ("50\\%", "0.5"),
    ("5 \\text{ cm}", "5 \\text{ m}"),
    ("5 \\text{ cm}", "5\\text{ cm}^2"),
    ("29 \\text{ cents}", "\\$29"),
    ("5m", "5"),
    ("x = 5", "y = 5"),
    ("x", "5"),
    ("x\\infty", "fty"),
    ("(1,2)", "[1,2]"),
    ("(1,2)", "(2,1)"),
    ("[5]", "5"),
    ("1,2", "1,2,3"),
    ("100,200", "100, 200"),
    ("A", "a"),
    ("1+2\\sqrt{3}", "2\\sqrt{3}+1"),
    ("9" * 201, "9" * 201),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_written_forms_of_one_answer_are_the_same(one: str, other: str) -> None:
    assert same_answer(one, other)
    assert same_answer(other, one)


@pytest.mark.parametrize(("one", "other"), NOT_SURELY_THE_SAME)
def test_what_is_not_surely_the_same_is_not(one: str, other: str) -> None:
    assert not same_answer(one, other)
    assert not same_answer(other, one)


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("so $\\boxed{3}$ and not \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{}", ""),
        ("\\boxed{1", None),
        ("boxed{1}", None),
    ],
)
def test_last_box_is_read_to_its_own_brace(text: str, inner: str | None) -> None:
    assert last_boxed(text) == inner


@given(st.text(st.sampled_from("0123456789.,/ -+x=()[]{}$\\^%") | st.characters(), max_size=220))
def test_any_text_can_be_compared(text: str) -> None:
    assert same_answer(text, text) in (True, False)
    assert same_answer(text, "7") == same_answer("7", text)


@pytest.mark.skipif(not GOLDS.exists(), reason="needs ../shared, which is absent here")
def test_real_golds_equal_themselves_and_other_forms_of_themselves_only() -> None:
    rows = map(json.loads, GOLDS.read_text().splitlines())
    golds = sorted({answer for row in rows for answer in row["final_answer"]})
    assert [gold for gold in golds if not same_answer(gold, gold) and len(gold) <= 200] == []
    short = [gold for gold in golds if len(gold) <= 13]
    assert (len(golds), len(short)) == (493, 318)
    assert {pair for pair in itertools.combinations(short, 2) if same_answer(*pair)} == {
        ("$1/3$", "$\\frac{1}{3}$"),
        ("$2 n$", "$2n$"),
        ("$44^{\\circ}$", "44"),
        ("$45^{\\circ}$", "45"),
        ("$4^{\\circ}$", "4"),
        ("$8 \\%$", "8"),
        ("$f(x)=1$", "1"),
        ("$k=1$", "1"),
        ("$k=3$", "3"),
    }

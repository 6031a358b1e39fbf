"""Redaction of personal data. The keys, numbers and addresses in tests/pii are invented, or published for tests."""

import json
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi.errors import InputError
from rlhi.pii import KINDS, Kind, redact, redact_column

HERE = Path(__file__).parent / "pii"
DATA = Path(__file__).parents[2] / "shared" / "data"


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


POSITIVES = rows("positives.jsonl")
LOOKALIKES = rows("lookalikes.jsonl")


@pytest.mark.parametrize("row", POSITIVES, ids=range(len(POSITIVES)))
def test_personal_data_is_replaced_and_the_rest_stays(row: dict[str, str]) -> None:
    text, counts = redact(row["text"])
    assert text == row["redacted"]
    assert counts == Counter({kind: n for kind in KINDS if (n := _added(row, kind))})


def _added(row: dict[str, str], kind: Kind) -> int:
    return row["redacted"].count(f"[{kind}]") - row["text"].count(f"[{kind}]")


@pytest.mark.parametrize("row", LOOKALIKES, ids=range(len(LOOKALIKES)))
def test_lookalike_stays(row: dict[str, str]) -> None:
    assert redact(row["text"]) == (row["text"], Counter())


@pytest.mark.parametrize("row", LOOKALIKES, ids=range(len(LOOKALIKES)))
def test_lookalike_stays_inside_a_code_block(row: dict[str, str]) -> None:
    text = f"```\n{row['text']}\n```\nand more"
    assert redact(text) == (text, Counter())


def test_the_test_set_is_as_large_as_it_says() -> None:
    assert len({row["text"] for row in POSITIVES}) >= 200
    assert len({row["text"] for row in LOOKALIKES}) >= 200
    assert {kind for kind in KINDS for row in POSITIVES if _added(row, kind)} == set(KINDS)


def test_column_is_redacted_as_its_texts_are() -> None:
    texts = [row["text"] for row in POSITIVES + LOOKALIKES]
    column, counts = redact_column(pa.array(texts))
    assert column.to_pylist() == [redact(text)[0] for text in texts]
    assert counts == sum((redact(text)[1] for text in texts), Counter())


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_kinds_asked_for_are_replaced(kind: Kind) -> None:
    texts = [row["text"] for row in POSITIVES]
    column, counts = redact_column(pa.array(texts), [kind])
    assert set(counts) == {kind}
    assert column.to_pylist() == [redact(text, [kind])[0] for text in texts]


def test_no_kinds_replace_nothing() -> None:
    texts = pa.array([row["text"] for row in POSITIVES])
    assert redact_column(texts, ()) == (texts, Counter())


def test_national_numbers_are_those_of_the_regions() -> None:
    text = "Ring 020 7946 0958, or (415) 555-2671, or +33 1 42 68 53 00."
    assert redact(text)[0] == "Ring 020 7946 0958, or [PHONE], or [PHONE]."
    assert redact(text, regions=["GB"])[0] == "Ring [PHONE], or (415) 555-2671, or [PHONE]."
    assert redact(text, regions=["GB", "US"])[0] == "Ring [PHONE], or [PHONE], or [PHONE]."
    assert redact(text, regions=[])[0] == "Ring 020 7946 0958, or (415) 555-2671, or [PHONE]."
    for regions in (["GB"], ["GB", "US"], []):
        assert redact_column(pa.array([text]), regions=regions)[0].to_pylist() == [redact(text, regions=regions)[0]]


@pytest.mark.parametrize("region", ["XX", "us", "USA", ""])
def test_unknown_region_is_named_with_the_way_out(region: str) -> None:
    for redacting in (
        lambda: redact("some text", regions=[region]),
        lambda: redact_column(pa.array(["some text"]), regions=[region]),
    ):
        with pytest.raises(InputError, match=rf"region '{region}' .* two letters"):
            redacting()


def test_bare_digits_are_a_phone_number_only_where_something_says_so() -> None:
    assert redact("My phone: 4155552671")[0] == "My phone: [PHONE]"
    assert redact("My order: 4155552671")[0] == "My order: 4155552671"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_nulls_order_length_and_type_are_kept(kind: pa.DataType) -> None:
    texts = [None, "a@bc.de", "", None, "plain", "a@bc.de\n\nplain\r\nc@bc.de\n"]
    clean = [None, "[EMAIL]", "", None, "plain", "[EMAIL]\n\nplain\r\n[EMAIL]\n"]
    for column in (
        pa.array(texts, kind),
        pa.chunked_array([texts[:2], texts[2:]], kind),
        pa.array(["x", *texts], kind)[1:],
    ):
        redacted, counts = redact_column(column)
        assert redacted.type == kind
        assert redacted.to_pylist() == clean
        assert counts == Counter(EMAIL=3)


@pytest.mark.parametrize("texts", [[], [None], [None, None], ["", ""], ["plain"]])
def test_column_with_nothing_to_redact_stays(texts: list[str | None]) -> None:
    column = pa.array(texts, pa.string())
    assert redact_column(column) == (column, Counter())
    assert redact_column(pa.chunked_array([column]))[0] == column
    assert redact_column(pa.chunked_array([], pa.string()))[0].to_pylist() == []


PIECES = st.one_of(
    st.sampled_from([row["text"] for row in POSITIVES + LOOKALIKES]),
    st.sampled_from(
        [" ", "\n", ", ", "", "", "-", ".", "/", ":", "=", '"', "(", "@", "+", "[", "]", "x", "0", "é", "\u200f", "٣"]
    ),
    st.text(max_size=12),
    st.text("0123456789.-+() @:/ab[]\n", max_size=30),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join).map(lambda text: text.encode("utf-8", "ignore").decode())


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=4))
def test_column_equals_redaction_of_each_text(texts: list[str]) -> None:
    column, counts = redact_column(pa.array(texts, pa.string()))
    alone = [redact(text) for text in texts]
    assert column.to_pylist() == [text for text, _ in alone]
    assert counts == sum((found for _, found in alone), Counter())


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once, _ = redact(text)
    assert redact(once) == (once, Counter())


MB = 1 << 20
HOSTILE: dict[str, tuple[int, str]] = {
    "EMAIL locals": (MB, "a.b-"),
    "EMAIL signs": (MB // 8, "@"),
    "EMAIL addresses": (MB // 8, "a@b."),
    "EMAIL labels": (MB, "x@a-b."),
    "PHONE": (MB // 32, "12 345 "),
    "PHONE numbers": (MB // 64, "415-555-2671 "),
    "PHONE plus": (MB // 32, "+1(23)4567"),
    "CARD": (MB // 8, "4111-1111-"),
    "IBAN": (MB // 4, "DE89 3704 "),
    "IPv4": (MB // 32, "1.2.3.4."),
    "IPv6": (MB, "2001:db8:"),
    "SECRET assigned": (MB, "password=1"),
    "SECRET quoted": (MB, "token='secret=\"1"),
    "SECRET URL": (MB, "://a:1"),
    "SECRET token": (MB // 2, "eyJaaaaaaaaa."),
    "SECRET key": (MB // 4, "-----BEGIN PRIVATE KEY-----\nab"),
    "SECRET key without end": (MB, "-----BEGIN PRIVATE KEY-----" + "\n" + "ab12" * 16),
    "SECRET flag": (MB, "--token 1"),
    "SECRET header": (MB, "bearer 1"),
    "letters": (MB, "a"),
    "digits": (MB, "7"),
    "spaces": (MB, " "),
    "lines": (MB // 2, "\n"),
    "brackets": (MB, "([+"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_the_length_of_a_hostile_message_not_with_its_square(name: str) -> None:
    length, piece = HOSTILE[name]
    half, whole = (piece * (n // len(piece)) for n in (length // 2, length))
    # a collection of garbage may fall into one of them
    assert any(_seconds(whole) < 3 * _seconds(half) + 0.3 for _ in range(3))


def _seconds(text: str) -> float:
    start = time.process_time()
    redact(text)
    redact_column(pa.array([text]))
    return time.process_time() - start


@pytest.mark.skipif(not DATA.exists(), reason="needs the conversations in ../shared/data")
def test_real_conversations_keep_nearly_all_their_text() -> None:
    files = [*DATA.glob("wildchat-sample/*.parquet"), *DATA.glob("realhumaneval/*.parquet")]
    told = [pq.read_table(file, columns=["conversation"]).to_pylist() for file in files]
    texts = pa.array([turn["content"] for talks in told for row in talks for turn in row["conversation"]])
    redacted, counts = redact_column(texts)
    assert counts.total() <= 5  # a server's address, twice, and a token that a user pasted
    assert sum(a == b for a, b in zip(texts.to_pylist(), redacted.to_pylist(), strict=True)) >= len(texts) - 5

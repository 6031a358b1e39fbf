from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi.records import (
    Answer,
    Candidates,
    Conversation,
    Dropped,
    Message,
    Persona,
    Rule,
    SafetyGrade,
    Turn,
    Verdict,
    from_table,
    schema,
    to_table,
)
from tests.rows import messages, pair, talk

ROWS: list[list[Any]] = [
    [
        talk("c1", "Hi.", "Hello."),
        Conversation("c2", "u", datetime(1970, 1, 1, tzinfo=UTC), None, None, "held-out", ()),
        Conversation("c3", "u", None, None, "English", "train", messages("Hi.")),
    ],
    [Turn("c1/2", "c1", "u", 2, "re-attempt with feedback")],
    [Persona("u", "- short", ("c1", "c2"), None), Persona("v", "- long", (), "c3")],
    [
        Candidates("c1/0", "u", messages("Hi."), None, None, (Answer("Hello.", "sample", "stop", -1.5, 0.25),)),
        Candidates("c2/0", "u", messages("Hi."), "- short", "Shorter.", (Answer("", "original", None, None, None),)),
    ],
    [pair("c1/0")],
    [Verdict("c1/0", "u", "initial", "log", "persona-guided", "usereval", "model-first", "a", "b", None, "unreadable")],
    [
        SafetyGrade("unsafe", "u1", "fraud", "How?", "No.", None, 0.0, None),
        SafetyGrade("sycophancy", "s1", None, "Where?", "Here.", "There.", None, "unread"),
    ],
    [Rule("length", 0.1, None, None, 0.25, None, "grew"), Rule("unsafe", None, None, None, 0.1, "not_measured", "no")],
    [Dropped("c1", "language")],
]


@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: type(rows[0]).__name__)
def test_record_comes_back_from_parquet_as_it_was(rows: list[Any], tmp_path: Path) -> None:
    record = type(rows[0])
    pq.write_table(to_table(record, rows), tmp_path / "rows.parquet")
    assert from_table(record, pq.read_table(tmp_path / "rows.parquet")) == rows


@pytest.mark.parametrize("record", [type(rows[0]) for rows in ROWS], ids=lambda record: record.__name__)
def test_no_rows_keep_their_schema(record: type, tmp_path: Path) -> None:
    pq.write_table(to_table(record, []), tmp_path / "rows.parquet")
    assert pq.read_schema(tmp_path / "rows.parquet").equals(schema(record))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    row = Candidates(text, text, (Message("user", text),), text, text, (Answer(text, "sample", "stop", 0.0, None),))
    assert from_table(Candidates, to_table(Candidates, [row])) == [row]


def test_time_comes_back_in_utc() -> None:
    there = timezone(timedelta(hours=5))
    row = Conversation("c", "u", datetime(2024, 3, 1, 5, tzinfo=there), None, None, "train", ())
    (found,) = from_table(Conversation, to_table(Conversation, [row]))
    assert found.timestamp is not None
    assert found.timestamp == datetime(2024, 3, 1, tzinfo=UTC)
    assert found.timestamp.utcoffset() == timedelta(0)


def test_only_what_may_be_missing_is_nullable() -> None:
    answers = schema(Candidates).field("answers")
    answer = answers.type.value_type
    assert not answers.nullable
    assert not answers.type.value_field.nullable
    assert {field.name for field in schema(Candidates) if field.nullable} == {"persona", "follow_up"}
    assert {field.name for field in schema(Conversation) if field.nullable} == {"timestamp", "model", "language"}
    assert {field.name for field in answer if field.nullable} == {"finish_reason", "logprob", "reward"}
    assert schema(Turn).field("index").type == pa.int64()
    assert schema(Conversation).field("timestamp").type == pa.timestamp("us", tz="UTC")


def test_missing_value_of_a_field_that_must_be_there_is_refused(tmp_path: Path) -> None:
    broken = Turn("t", "c", None, 0, "new")  # type: ignore[arg-type]
    with pytest.raises((pa.ArrowInvalid, ValueError)):
        pq.write_table(to_table(Turn, [broken]), tmp_path / "rows.parquet")

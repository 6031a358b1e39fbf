import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi.errors import InputError
from rlhi.ingest.kinds import detect, fields_in, fields_of
from rlhi.ingest.mapping import Mapping

SHARED = Path(__file__).parents[2] / "shared" / "data"
EXAMPLES = Path(__file__).parents[1] / "examples" / "conversations.jsonl"
TURNS = [{"role": "user", "content": "Hi.", "author": {"uid": "ann"}}]

ROWS: list[tuple[str, dict[str, Any]]] = [
    ("wildchat", {"conversation_hash": "h", "conversation": TURNS}),
    ("wildchat", {"conversation": TURNS, "hashed_ip": None}),
    ("chat-log", {"messages": TURNS, "user_id": "ann"}),
    ("chat-log", {"conversations": [{"from": "human", "value": "Hi."}], "metadata": {"user_id": "ann"}}),
    ("prm800k", {"question": {"problem": "1+1?"}, "label": {"finish_reason": "solution"}, "labeler": "x"}),
    ("champ", {"problems": {}, "concepts": {}, "hints": {}}),
]


@pytest.mark.parametrize(("kind", "row"), ROWS)
def test_row_tells_the_kind(kind: str, row: dict[str, Any]) -> None:
    assert detect(fields_in(row), "log.jsonl", Mapping()) == kind


@pytest.mark.parametrize(("kind", "row"), ROWS[:-1])
def test_parquet_schema_tells_the_same_as_its_rows(kind: str, row: dict[str, Any]) -> None:
    schema = pa.Table.from_pylist([row]).schema
    assert sorted(fields_of(schema)) == sorted(fields_in(row))
    assert detect(fields_of(schema), "log.parquet", Mapping()) == kind


@pytest.mark.parametrize("path", ["messages.*.author.uid", "messages.0.author.uid", "tenant + messages.*.author.uid"])
def test_mapping_tells_a_log_with_other_names(path: str) -> None:
    row = {"messages": TURNS}
    assert detect(fields_in(row), "log.jsonl", replace(Mapping(), user=(path,))) == "chat-log"


def test_no_kind_says_what_each_needs_and_what_is_there() -> None:
    with pytest.raises(InputError) as caught:
        detect(fields_in({"text": "Hi.", "meta": {"a": 1}}), "logs/x.jsonl", Mapping())
    said = str(caught.value)
    assert said.startswith("logs/x.jsonl: its fields (text, meta) fit no kind of data; give --kind (wildchat: ")
    assert "prm800k: question.problem and label.finish_reason" in said
    assert "\n" not in said


def test_several_kinds_are_not_chosen_from() -> None:
    row = {"conversation": TURNS, "hashed_ip": "x", "user_id": "ann"}
    with pytest.raises(InputError, match="fit wildchat and chat-log; give --kind"):
        detect(fields_in(row), "x.jsonl", Mapping())


def test_chat_log_without_a_user_is_no_chat_log() -> None:
    with pytest.raises(InputError, match=r"fit no kind of data.*chat-log: messages or .* and user_id or "):
        detect(fields_in({"messages": TURNS}), "x.jsonl", Mapping())


def test_examples_are_wildchat() -> None:
    first = json.loads(EXAMPLES.read_text().splitlines()[0])
    assert detect(fields_in(first), "x", Mapping()) == "wildchat"


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared, which is absent here")
@pytest.mark.parametrize("folder", ["wildchat-sample", "realhumaneval"])
def test_real_parquet_is_wildchat(folder: str) -> None:
    import pyarrow.parquet as pq

    for file in (SHARED / folder).glob("*.parquet"):
        assert detect(fields_of(pq.read_schema(file)), file.name, Mapping()) == "wildchat"


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared, which is absent here")
def test_real_reasoning_rows_are_prm800k() -> None:
    for line in (SHARED / "math" / "prm800k-rows.jsonl").read_text().splitlines():
        assert detect(fields_in(json.loads(line)), "x", Mapping()) == "prm800k"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["messages", "user", "conversation", "label", "a.b", ""]), inner)
    ),
    max_leaves=12,
)


def kind_or_error(row: Any) -> str:
    try:
        return detect(fields_in(row), "x", Mapping())
    except InputError as error:
        return str(error)


@given(JSON)
def test_any_row_has_a_kind_or_an_error_in_one_line(row: Any) -> None:
    said = kind_or_error(row)
    assert said in ("wildchat", "chat-log") or said.startswith("x: its fields (")
    assert "\n" not in said


def test_error_names_no_more_fields_than_one_reads() -> None:
    said = kind_or_error({f"field {i}": i for i in range(1000)})
    assert "field 19, … (1000)" in said
    assert "field 20" not in said

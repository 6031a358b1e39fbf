import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi.config import as_dict, override
from rlhi.config import parse as parse_config
from rlhi.errors import InputError
from rlhi.ingest.mapping import WILDCHAT, Mapping, RawRow, check, parse
from tests.rows import START

EXAMPLES = Path(__file__).parents[1] / "examples" / "conversations.jsonl"
HI = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
SAID = (("user", "Hi."), ("assistant", "Hello."))


def read(row: Any, mapping: Mapping | None = None) -> RawRow:
    found = parse(row, mapping or Mapping())
    assert isinstance(found, RawRow)
    return found


def said(*turns: Any) -> tuple[tuple[str | None, str | None], ...]:
    return read({"messages": list(turns)}).messages


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


CALL = [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
RESULT = {"role": "tool", "tool_call_id": "1", "content": "12 degrees"}


def test_row_in_openais_shape_is_read() -> None:
    row = {"id": "c1", "user_id": "ann", "created_at": "2024-03-01T00:00:00Z", "model": "gpt-4o", "messages": HI}
    assert read(row) == RawRow("c1", "ann", None, START, "gpt-4o", None, None, None, SAID)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": HI, "user_id": "ann"},
        {"messages": HI, "user": "ann"},
        {"messages": HI, "user": {"id": "ann", "name": "Ann"}},
        {"messages": HI, "user_id": None, "metadata": {"user_id": "ann"}},
        {"messages": HI, "user_id": "  ", "metadata": {"user": {"id": "ann"}}},
        {"messages": HI, "metadata.user_id": "ann"},
        {"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}], "user": "ann"},
    ],
)
def test_near_relatives_of_the_shape_are_read_without_a_mapping(row: Any) -> None:
    found = read(row)
    assert (found.user, found.messages) == ("ann", SAID)


def test_mapping_names_other_places() -> None:
    places = {
        "messages": "chat.turns",
        "role": "author.kind",
        "content": "body",
        "id": "tenant + session",
        "user": "chat.turns.*.author.uid",
        "time": "chat.turns.0.at",
        "roles": {"customer": "user", "agent": "assistant"},
    }
    turns = [
        {"author": {"kind": "customer"}, "body": "Hi.", "at": "2024-03-01"},
        {"author": {"kind": "agent", "uid": 7}, "body": "Hello."},
    ]
    found = read({"tenant": "t", "session": 12, "chat": {"turns": turns}}, parse_config(Mapping, places, "x"))
    assert (found.key, found.user, found.timestamp, found.messages) == ("t 12", "7", START, SAID)


def test_first_alternative_that_holds_something_wins() -> None:
    row = {"messages": HI, "a": None, "b": "second", "c": "third"}
    assert read(row, replace(Mapping(), user=("none", "a", "b", "c"))).user == "second"


def test_identity_of_two_parts_needs_only_one() -> None:
    mapping = replace(Mapping(), id=("a + b", "c"))
    assert [read({"messages": HI, **row}, mapping).key for row in ({"b": 1}, {"c": 2}, {})] == ["1", "2", None]


@pytest.mark.parametrize(
    ("value", "name"),
    [(7, "7"), (7.0, "7"), (7.5, "7.5"), (" ann ", "ann"), ("", None), (float("nan"), None), (True, None), ([1], None)],
)
def test_user_is_text_or_a_number(value: object, name: str | None) -> None:
    assert read({"messages": HI, "user_id": value}).user == name


@pytest.mark.parametrize(
    "value",
    [
        "2024-03-01",
        "2024-03-01T00:00:00",
        "2024-03-01T00:00:00Z",
        "2024-03-01 05:00:00.000+05:00",
        1709251200,
        1709251200.0,
        1709251200000,
        datetime(2024, 3, 1),
        datetime(2024, 3, 1, 5, tzinfo=timezone(timedelta(hours=5))),
    ],
)
def test_time_is_read_in_utc(value: object) -> None:
    found = read({"messages": HI, "timestamp": value}).timestamp
    assert found is not None
    assert found == START
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "value",
    ["yesterday", "", "1709251200000", True, [], {}, 1e300, 10**400, float("nan"), "0001-01-01T00:00:00+05:00"],
)
def test_what_is_no_time_is_null(value: object) -> None:
    assert read({"messages": HI, "timestamp": value}).timestamp is None


def test_time_that_cannot_be_read_gives_way_to_the_next() -> None:
    assert read({"messages": HI, "timestamp": "soon", "created_at": 1709251200}).timestamp == START


def test_only_a_boolean_is_a_flag() -> None:
    found = read({"messages": HI, "toxic": False, "redacted": "no"})
    assert (found.toxic, found.redacted) == (False, None)


NO_MESSAGES: list[Any] = [None, [], {}, "Hi.", ["Hi."], [None], [HI[0], 3]]
NO_RECORDS: list[Any] = [None, [], "x", {}, *({"messages": turns} for turns in NO_MESSAGES)]


@pytest.mark.parametrize("row", NO_RECORDS)
def test_what_holds_no_list_of_messages_is_no_record(row: Any) -> None:
    assert parse(row, Mapping()) == "not_a_record"


def test_roles_and_contents_are_passed_on_for_others_to_judge() -> None:
    turns = [{"role": "developer", "content": "Be kind."}, {"role": "pirate", "content": ""}, {"role": 3}, {}]
    assert said(*turns) == (("system", "Be kind."), ("pirate", ""), (None, None), (None, None))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            [
                {"type": "text", "text": "One."},
                {"type": "image_url", "image_url": {}},
                {"type": "text", "text": "Two."},
            ],
            0,
        ),
        ([{"type": "input_text", "text": "One."}, {"type": "output_text", "text": "Two."}], 0),
        (["One.", {"text": "Two."}, None], 0),
        ([{"type": "image_url", "image_url": {"url": "data:"}}], None),
        ([{"type": "text", "text": None}], None),
        ([], None),
        ({"text": "One."}, None),
    ],
)
def test_texts_of_content_in_parts_are_joined(content: Any, text: int | None) -> None:
    assert said(user(content)) == (("user", "One.\n\nTwo." if text == 0 else None),)


def test_refusal_is_what_the_assistant_said() -> None:
    assert said(user("Hi."), assistant(None, refusal="I cannot.")) == (("user", "Hi."), ("assistant", "I cannot."))


def test_half_of_a_character_is_replaced() -> None:
    row = json.loads('{"id": "\\ud83d", "messages": [{"role": "us\\udc00er", "content": "Hi \\ud83d \\ud83d\\ude00"}]}')
    found = read(row)
    assert (found.key, found.messages) == ("?", (("us?er", "Hi ? \U0001f600"),))


def test_tools_leave_what_the_user_saw() -> None:
    asked, answered = user("Cold outside?"), assistant("Twelve degrees.")
    seen = (("user", "Cold outside?"), ("assistant", "Twelve degrees."))
    assert said(asked, assistant(None, tool_calls=CALL), RESULT, answered) == seen
    assert (
        said(asked, assistant("", function_call={"name": "x"}), {"role": "function", "content": "12"}, answered) == seen
    )
    assert said(asked, *[assistant(None, tool_calls=CALL), RESULT] * 3, answered) == seen
    use, result = [{"type": "tool_use", "name": "x"}], [{"type": "tool_result", "content": "12"}]
    assert said(asked, assistant(use), user(result), answered) == seen


def test_what_the_assistant_says_around_a_tool_is_one_message() -> None:
    turns = [user("Cold?"), assistant("Let me look.", tool_calls=CALL), RESULT, assistant("Twelve degrees.")]
    assert said(*turns) == (("user", "Cold?"), ("assistant", "Let me look.\n\nTwelve degrees."))


def test_two_messages_of_the_assistant_without_a_tool_between_stay_two() -> None:
    assert said(user("Hi."), assistant("Hello."), assistant("Well?"))[1:] == (
        ("assistant", "Hello."),
        ("assistant", "Well?"),
    )


def test_empty_answer_without_a_call_stays_for_others_to_judge() -> None:
    assert said(user("Hi."), assistant(None, tool_calls=[])) == (("user", "Hi."), ("assistant", None))


def test_mapped_role_of_a_tool_is_kept() -> None:
    mapping = replace(Mapping(), roles={"tool": "assistant"})
    assert read({"messages": [HI[0], RESULT]}, mapping).messages[1] == ("assistant", "12 degrees")


def test_wildchat_is_read_by_its_mapping() -> None:
    row = json.loads(EXAMPLES.read_text().splitlines()[0])
    found = read(row, WILDCHAT)
    first = row["conversation"][0]
    assert found.key == f"{row['conversation_hash']} {first['turn_identifier']}"
    assert (found.user, found.user_agent) == (row["hashed_ip"], row["header"]["user-agent"])
    assert (found.model, found.language, found.toxic, found.redacted) == (row["model"], "English", False, False)
    assert found.timestamp == datetime(2024, 3, 2, 7, 37, 8, tzinfo=UTC)
    assert found.messages == tuple((turn["role"], turn["content"]) for turn in row["conversation"])


def test_wildchat_user_may_be_named_by_a_message_only() -> None:
    row = {"conversation": [{**HI[0], "hashed_ip": None}, {**HI[1], "hashed_ip": "ann"}], "hashed_ip": None}
    assert read(row, WILDCHAT).user == "ann"


def test_mapping_is_set_by_flags_and_survives_json() -> None:
    changed = override(Mapping(), "user", '["metadata.uid", "uid"]', "ingest.mapping")
    assert changed.user == ("metadata.uid", "uid")
    assert override(changed, "messages", "chat", "ingest.mapping").messages == ("chat",)
    assert override(changed, "roles", '{"me": "user"}', "ingest.mapping").roles == {"me": "user"}
    assert parse_config(Mapping, json.loads(json.dumps(as_dict(changed))), "x") == changed


@pytest.mark.parametrize(
    ("values", "named"), [({"users": "x"}, "users"), ({"user": [3]}, "user"), ({"roles": {"a": "b"}}, "roles")]
)
def test_mapping_that_cannot_be_is_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=rf"ingest\.mapping\.{named}"):
        parse_config(Mapping, values, "ingest.mapping")


MISSING: list[tuple[Any, str, str]] = [
    ({"text": "Hi."}, "messages", r"log\.jsonl, row 1: .*its fields are text;"),
    ({"messages": HI, "metadata": {"uid": "ann"}}, "user", r"its fields are messages, metadata, metadata\.uid;"),
    (
        {"messages": [{"author": "u", "content": "Hi."}], "user": None},
        "role",
        r"row 1, first message: .* author, content;",
    ),
    ({"messages": [{"role": "user", "body": "Hi."}], "user": None}, "content", "its fields are role, body;"),
]


@pytest.mark.parametrize(("row", "field", "shown"), MISSING)
def test_first_row_without_a_field_is_named_with_the_way_out(row: Any, field: str, shown: str) -> None:
    with pytest.raises(InputError, match=shown) as caught:
        check(row, Mapping(), "log.jsonl, row 1")
    assert f"has no field for {field} (" in str(caught.value)
    assert str(caught.value).endswith(f"""--mapping.{field}='["path.to.it"]'""")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row", [{"messages": HI, "user": None}, {"messages": None, "user": "a"}, {"messages": HI, "metadata": None}]
)
def test_first_row_may_have_nulls(row: Any) -> None:
    check(row, Mapping(), "log.jsonl, row 1")


NAMES = [
    "messages",
    "role",
    "content",
    "user",
    "id",
    "timestamp",
    "metadata",
    "type",
    "text",
    "tool_calls",
    "roles",
    "*",
]
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["tool", "user"])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)


@given(JSON)
def test_any_row_is_read_or_no_record(row: Any) -> None:
    assert_closed(parse(row, Mapping()))


@given(st.lists(st.fixed_dictionaries({"role": LEAVES, "content": JSON}), min_size=1), JSON)
def test_any_messages_are_read(messages: Any, other: Any) -> None:
    found = parse({"messages": messages, "timestamp": other, "user": other, "id": other, "toxic": other}, Mapping())
    assert isinstance(found, RawRow)
    assert_closed(found)


def assert_closed(found: RawRow | str) -> None:
    if not isinstance(found, RawRow):
        assert found == "not_a_record"
        return
    texts = [found.key, found.user, *(text for turn in found.messages for text in turn)]
    assert all(text is None or text.encode() is not None for text in texts)
    assert found.timestamp is None or found.timestamp.tzinfo is UTC
    assert found.toxic in (None, True, False)


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_first_row_passes_or_is_an_error_in_one_line(row: Any) -> None:
    assert "\n" not in complaint(row)


def complaint(row: Any) -> str:
    try:
        check(row, Mapping(), "x")
    except InputError as error:
        return str(error)
    return ""

import copy
import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi.artifacts import Input, Output
from rlhi.cli import main
from rlhi.errors import InputError
from rlhi.ingest.stage import IngestConfig, ingest, is_evaluated, run, split
from rlhi.ingest.wildchat import read_rows, to_conversation
from rlhi.records import Conversation, Dropped, Message
from tests.rows import START, reasons, talk

SHARED = Path(__file__).parents[2] / "shared" / "data"
EASY = IngestConfig(min_conversations=1, eval_share=0.0)
PROMPT = "As a prompt generator for a generative AI called “Midjourney”, you will create image prompts."


def message(role: Any, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, "hashed_ip": None, **more}


def row(name: str = "h1", user: Any = "ann", said: Any = None, **more: Any) -> dict[str, Any]:
    """One row in WildChat's schema."""
    turns = [message("user", "Hi."), message("assistant", "Hello.")] if said is None else said
    return {
        "conversation_hash": name,
        "model": "gpt-4",
        "timestamp": "2024-03-01T00:00:00+00:00",
        "conversation": turns,
        "language": "English",
        "hashed_ip": user,
        **more,
    }


def users(*counts: int) -> list[Conversation]:
    """Users u0, u1, … with so many conversations each, one a day."""
    return [
        talk(f"u{u}c{i}", "Hi.", "Hello.", user=f"u{u}", day=i) for u, count in enumerate(counts) for i in range(count)
    ]


def write(path: Path, *rows: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{json.dumps(each)}\n" for each in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text(text)
    return str(path)


def test_row_becomes_a_conversation() -> None:
    assert to_conversation(row(), "x:1") == Conversation(
        id=to_conversation(row(), "elsewhere:9").id,
        user_id="ann",
        timestamp=START,
        model="gpt-4",
        language="English",
        split="train",
        messages=(Message("user", "Hi."), Message("assistant", "Hello.")),
    )


BROKEN = [
    ("not_a_record", None),
    ("not_a_record", ["conversation"]),
    ("not_a_record", row(said=[])),
    ("not_a_record", row(said="Hi.")),
    ("not_a_record", row(said=["Hi."])),
    ("not_a_record", row(timestamp=None)),
    ("not_a_record", row(timestamp="yesterday")),
    ("not_a_record", row(timestamp="0001-01-01T00:00:00+05:00")),
    ("null_content", row(said=[message("user", None), message("assistant", "Hello.")])),
    ("null_content", row(said=[message("user", 3), message("assistant", "Hello.")])),
    ("empty_message", row(said=[message("user", "Hi."), message("assistant", " \n")])),
    ("repeated_role", row(said=[message("user", "Hi."), message("user", "Well?"), message("assistant", "Hello.")])),
    ("repeated_role", row(said=[message("assistant", "Hello."), message("user", "Hi.")])),
    ("unknown_role", row(said=[message("human", "Hi."), message("assistant", "Hello.")])),
    ("unknown_role", row(said=[message(["user"], "Hi."), message("assistant", "Hello.")])),
    ("no_user_message", row(said=[message("assistant", "Hello.")])),
    ("no_user_message", row(said=[message("system", "Be kind.")])),
    ("no_answer", row(said=[message("user", "Hi.")])),
    ("no_user_id", row(user=None)),
    ("no_user_id", row(user="")),
]


@pytest.mark.parametrize(("reason", "broken"), BROKEN)
def test_broken_row_is_dropped_with_its_place_and_reason(reason: str, broken: Any) -> None:
    assert to_conversation(broken, "log.jsonl:7") == Dropped("log.jsonl:7", reason)  # type: ignore[arg-type]


def test_system_message_and_last_word_of_the_user_are_kept() -> None:
    said = [
        message("system", "Be kind."),
        message("user", "Hi."),
        message("assistant", "Hello."),
        message("user", "Bye."),
    ]
    found = to_conversation(row(said=said), "x:1")
    assert isinstance(found, Conversation)
    assert [each.role for each in found.messages] == ["system", "user", "assistant", "user"]


def test_user_is_named_by_the_row_or_by_a_turn() -> None:
    found = to_conversation(
        row(user=None, said=[message("user", "Hi.", hashed_ip="ben"), message("assistant", "Yes?")]), ""
    )
    assert isinstance(found, Conversation)
    assert found.user_id == "ben"


def test_rows_with_one_hash_differ_by_their_first_turn() -> None:
    def numbered(number: int) -> Any:
        return to_conversation(
            row(said=[message("user", "Hi.", turn_identifier=number), message("assistant", "Yes?")]), ""
        )

    assert numbered(1).id == numbered(1).id != numbered(2).id


def test_second_row_of_an_id_is_dropped() -> None:
    kept, dropped = ingest([talk("a", "Hi.", "Hello."), talk("a", "Bye.", "Bye.")], EASY)
    assert [each.messages[0].content for each in kept] == ["Hi."]
    assert dropped == [Dropped("a", "duplicate_id")]


def test_other_language_is_dropped_unless_all_are_kept() -> None:
    rows = [talk("en", "Hi.", "Hello."), replace(talk("fr", "Salut.", "Bonjour."), language="French")]
    rows.append(replace(talk("none", "?", "!"), language=None))
    assert reasons(ingest(rows, EASY)[1]) == {"fr": "language", "none": "language"}
    assert ingest(rows, replace(EASY, language=None))[1] == []


def test_midjourney_prompt_is_dropped_and_talk_about_it_is_not() -> None:
    rows = [talk("prompt", PROMPT, "Sure."), talk("talk", "What is Midjourney?", "A program.")]
    assert reasons(ingest(rows, EASY)[1]) == {"prompt": "midjourney"}


def test_ten_exchanges_stay_and_eleven_are_dropped() -> None:
    rows = [talk("ten", *["Hi.", "Hello."] * 10), talk("eleven", *["Hi.", "Hello."] * 11)]
    assert reasons(ingest(rows, EASY)[1]) == {"eleven": "too_many_turns"}


def test_users_with_too_few_or_too_many_conversations_are_dropped() -> None:
    config = replace(EASY, min_conversations=3, max_conversations=4)
    kept, dropped = ingest(users(2, 3, 4, 5), config)
    assert {each.user_id for each in kept} == {"u1", "u2"}
    assert Counter(reasons(dropped).values()) == {"too_few_conversations": 2, "too_many_conversations": 5}


def test_conversations_per_user_are_counted_after_the_filters_before() -> None:
    rows = users(3)
    rows[0] = replace(rows[0], language="French")
    rows += [talk("mj", PROMPT, "Sure.", user="u0")]
    kept, dropped = ingest(rows, replace(EASY, min_conversations=3))
    assert kept == []
    assert reasons(dropped) == {
        "u0c0": "language",
        "mj": "midjourney",
        "u0c1": "too_few_conversations",
        "u0c2": "too_few_conversations",
    }


def test_user_cap_takes_whole_users_and_no_more_than_asked() -> None:
    kept, dropped = ingest(users(3, 3, 3, 3), replace(EASY, min_conversations=3, max_users=2))
    assert sorted(Counter(each.user_id for each in kept).values()) == [3, 3]
    assert set(reasons(dropped).values()) == {"user_cap"}


def test_last_conversations_of_an_evaluation_user_are_held_out() -> None:
    rows = users(5)[::-1]
    splits = split(rows, IngestConfig(eval_share=1.0, eval_min_conversations=4, held_out=2))
    assert splits == {
        "u0c0": "reference",
        "u0c1": "reference",
        "u0c2": "reference",
        "u0c3": "held-out",
        "u0c4": "held-out",
    }


def test_evaluation_user_without_enough_conversations_is_dropped() -> None:
    config = IngestConfig(min_conversations=1, eval_share=1.0, eval_min_conversations=4, held_out=2)
    kept, dropped = ingest(users(3, 4), config)
    assert {each.user_id for each in kept} == {"u1"}
    assert set(reasons(dropped).values()) == {"too_few_conversations"}


def test_split_moves_nobody_when_rows_are_reordered_or_users_come() -> None:
    config = IngestConfig(eval_share=0.5, eval_min_conversations=2, held_out=1)
    rows = users(*[3] * 40)
    before = split(rows, config)
    assert {"train", "reference", "held-out"} == set(before.values())
    assert split(rows[::-1], config) == before
    assert before.items() <= split([*users(*[3] * 60)], config).items()


def test_seed_chooses_the_evaluation_users() -> None:
    def chosen(seed: int) -> set[str]:
        return {f"u{i}" for i in range(1000) if is_evaluated(f"u{i}", IngestConfig(seed=seed))}

    assert chosen(0) != chosen(1)
    assert 150 < len(chosen(0)) < 250


def test_order_of_rows_is_kept() -> None:
    rows = users(3, 3, 3)[::-1]
    assert [each.id for each in ingest(rows, EASY)[0]] == [each.id for each in rows]


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz", "log.json", "log.parquet"])
def test_every_format_gives_the_same_conversations(tmp_path: Path, name: str) -> None:
    rows = [row("h1"), row("h2", user="ben")]
    kept, broken = read_rows(write(tmp_path / name, *rows))
    assert kept == [to_conversation(each, "") for each in rows]
    assert broken == []


def test_folder_and_glob_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", row("h2"))
    write(tmp_path / "a.parquet", row("h1"))
    write(tmp_path / "deep" / "c.jsonl.gz", row("h3"))
    (tmp_path / "README.md").write_text("about")
    ids = [to_conversation(row(name), "").id for name in ("h1", "h2", "h3")]
    assert [each.id for each in read_rows(str(tmp_path))[0]] == ids
    assert [each.id for each in read_rows(f"{tmp_path}/*.jsonl")[0]] == ids[1:2]
    assert [each.id for each in read_rows(f"file://{tmp_path}")[0]] == ids


def test_line_that_is_no_object_is_dropped_and_a_blank_one_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f"{json.dumps(row())}\n\n{{broken\n[1]\n{json.dumps(row('h2'))}")
    kept, broken = read_rows(str(path))
    assert len(kept) == 2
    assert [each.reason for each in broken] == ["not_a_record"] * 2


def test_half_of_a_character_is_replaced(tmp_path: Path) -> None:
    source = write(tmp_path / "log.jsonl", row(said=[message("user", "Hi \ud83d"), message("assistant", "\U0001f600")]))
    with Output(tmp_path / "out", Conversation) as output:
        run(source, output, EASY)
    assert [each.content for each in read_rows(source)[0][0].messages] == ["Hi ?", "\U0001f600"]


UNREADABLE = [
    ("log.jsonl", b"", r"is empty \(0 bytes\)"),
    ("log.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer.*git lfs pull"),
    ("log.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer.*git lfs pull"),
    ("log.parquet", b"not Parquet at all", "cannot be read as Parquet"),
    ("log.parquet", b"x", "cannot be read as Parquet"),
    ("log.jsonl.gz", b"not gzip at all", "cannot be read as JSONL"),
    ("log.jsonl.gz", gzip.compress(b'{"conversation": []}' * 99)[:-20], "cannot be read as JSONL"),
    ("log.jsonl", b"[1]\n2\n", "holds no JSON object on any line"),
    ("log.jsonl", b"\n\n", "holds no JSON object on any line"),
    ("log.jsonl", b"\xff\xfe\x00x", "holds no JSON object on any line"),
    ("log.jsonl", b'{"messages": []}\n', "has no field 'conversation'; its fields are messages"),
    ("log.jsonl", b'{"conversation": []}\n', "has no field 'hashed_ip'"),
]


@pytest.mark.parametrize(("name", "content", "said"), UNREADABLE)
def test_unreadable_file_is_named_with_what_is_wrong(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{tmp_path / name}: .*{said}"):
        read_rows(str(tmp_path))


WRONG_COLUMNS = [
    ({"hashed_ip": ["ann"]}, "has no column 'conversation'; its columns are hashed_ip"),
    ({"conversation": [[message("user", "Hi.")]]}, "has no column 'hashed_ip'"),
    ({"conversation": ["Hi."], "hashed_ip": ["ann"]}, "column 'conversation' is string, expected a list of messages"),
    ({"conversation": [[{"role": "user"}]], "hashed_ip": ["ann"]}, "have no field 'content'"),
]


@pytest.mark.parametrize(("columns", "said"), WRONG_COLUMNS)
def test_parquet_with_another_schema_is_named_with_the_field(
    tmp_path: Path, columns: dict[str, Any], said: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    with pytest.raises(InputError, match=f"{tmp_path}/log.parquet: .*{said}"):
        read_rows(str(tmp_path))


def test_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for source, said in [
        (f"{tmp_path}/none", "no such file or folder"),
        (f"{tmp_path}/*.jsonl", "no such file or folder"),
        (str(tmp_path), r"no \.parquet, .* among its 1 files, the first is .*notes\.txt"),
        ("ftp://somewhere/log.jsonl", "unknown scheme"),
    ]:
        with pytest.raises(InputError, match=said):
            read_rows(source)


def test_row_of_other_nested_columns_reads_only_what_is_needed(tmp_path: Path) -> None:
    said = [message("user", "Hi.", header={"user-agent": "x"}, toxic=None), message("assistant", "Hello.")]
    moderation = [{"categories": {"hate/threatening": False, "hate_threatening": None}}]
    kept, _ = read_rows(write(tmp_path / "log.parquet", row(said=said, openai_moderation=moderation)))
    assert [each.content for each in kept[0].messages] == ["Hi.", "Hello."]


def test_run_writes_what_stays_and_what_does_not(tmp_path: Path) -> None:
    source = write(tmp_path / "log.jsonl", row("h1"), row("h2", user=None), row("h3", language="French"))
    with Output(tmp_path / "out", Conversation) as output:
        run(source, output, EASY)
        assert (output.rows_in, output.kept) == (3, 1)
        assert output.dropped == {"no_user_id": 1, "language": 1}
        assert output.metrics == {"users_train": 1, "users_held_out": 0}


def test_nothing_left_is_an_error_with_the_counts(tmp_path: Path) -> None:
    source = write(tmp_path / "log.jsonl", row(), row("h2", language="French"))
    with (
        Output(tmp_path / "out", Conversation) as output,
        pytest.raises(InputError, match=r"none of 2 conversations is left \(language 1, too_few_conversations 1\)"),
    ):
        run(source, output, IngestConfig())


def test_held_out_share_that_leaves_no_history_is_refused(tmp_path: Path) -> None:
    with (
        Output(tmp_path / "out", Conversation) as output,
        pytest.raises(InputError, match=r"ingest\.held_out=5 leaves no history"),
    ):
        run("nowhere", output, IngestConfig(held_out=5, eval_min_conversations=5))


JUNK: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({}) | st.just([None])
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good row with one thing replaced or removed."""
    made: Any = copy.deepcopy(row(draw(st.sampled_from("abc"))))
    place = draw(st.sampled_from(["row", "field", "turn", "message"]))
    if place == "row":
        return draw(st.just(made) | JUNK)
    if place == "turn":
        made["conversation"][draw(st.integers(0, 1))] = draw(JUNK)
        return made
    node = made if place == "field" else made["conversation"][draw(st.integers(0, 1))]
    key = draw(st.sampled_from(sorted(node)))
    if draw(st.booleans()):
        node[key] = draw(JUNK)
    else:
        del node[key]
    return made


@given(st.lists(mutated(), max_size=8))
@settings(max_examples=60)
def test_no_row_crashes_or_is_lost(rows: list[Any]) -> None:
    parsed = [to_conversation(each, f"x:{i}") for i, each in enumerate(rows)]
    good = [each for each in parsed if isinstance(each, Conversation)]
    kept, dropped = ingest(good, EASY)
    assert len(kept) + len(dropped) + len(parsed) - len(good) == len(rows)


def ingested(source: Path, out: Path, *flags: str) -> tuple[list[Conversation], list[Dropped]]:
    assert main(["ingest", "--source", str(source), "--conversations", str(out), *flags]) == 0
    found = Input(out, Conversation)
    return found.read(), found.read_dropped()


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared, which is absent here")
def test_real_logs_with_users_are_split_by_user(tmp_path: Path) -> None:
    flags = ("--eval_min_conversations", "4", "--held_out", "2")
    kept, dropped = ingested(SHARED / "realhumaneval", tmp_path / "out", *flags)
    assert len(kept) + len(dropped) == 402
    assert {each.split for each in kept} == {"train", "reference", "held-out"}
    splits = {(each.user_id, each.split == "train") for each in kept}
    assert len(splits) == len({user for user, _ in splits})


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared, which is absent here")
def test_real_logs_without_users_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(SHARED / "wildchat-sample")
    assert main(["ingest", "--source", source, "--conversations", str(tmp_path / "out")]) == 2
    assert "no_user_id" in capsys.readouterr().err

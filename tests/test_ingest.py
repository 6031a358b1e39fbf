import gzip
import importlib.util
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhi.artifacts import Output
from rlhi.cli import main
from rlhi.config import Secret
from rlhi.errors import InputError
from rlhi.ingest.config import IngestConfig
from rlhi.ingest.identity import Hasher
from rlhi.ingest.ledger import is_evaluated
from rlhi.ingest.mapping import Mapping
from rlhi.ingest.stage import run
from rlhi.records import Conversation, Dropped, Message, from_table
from tests.rows import START

SHARED = Path(__file__).parents[2] / "shared" / "data"
EASY = IngestConfig(min_conversations=1, eval_share=0.0, drop_duplicates=False)
ONCE = replace(EASY, drop_duplicates=True)
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


def spoken(name: str, *said: str, user: str = "ann", day: int = 0, **more: Any) -> dict[str, Any]:
    """One row: who said what in turn, on the given day."""
    turns = [message("assistant" if place % 2 else "user", text) for place, text in enumerate(said)]
    return row(name, user, turns, timestamp=(START + timedelta(days=day)).isoformat(), **more)


def users(*counts: int) -> list[dict[str, Any]]:
    """Users u0, u1, … with so many conversations each, one a day, u0c0, u0c1, …"""
    return [
        spoken(f"u{u}c{i}", f"Hi {u} {i}.", "Hello.", user=f"u{u}", day=i)
        for u, count in enumerate(counts)
        for i in range(count)
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


class Ingested:
    """What ingest made of rows, by the names that the rows had in the source."""

    def __init__(self, source: str, out: Path, config: IngestConfig = EASY, salt: str = "", forget: str = "") -> None:
        with Output(out, Conversation) as output:
            run(source, output, config, Secret(salt), forget)
            self.output = output
            self.rows = _read(output.partial, Conversation)
            self.lost = _read(output.partial / "dropped", Dropped)
        self._hasher = Hasher(salt)

    def kept(self, *names: str) -> list[str]:
        """The names of the rows that stayed, in order."""
        known = {self._hasher.conversation(name): name for name in names}
        return [known[each.id] for each in self.rows]

    def dropped(self, *names: str) -> dict[str, str]:
        """Why rows left, by name, or by place where a row has none."""
        known = {self._hasher.conversation(name): name for name in names}
        return {known.get(each.id, each.id): each.reason for each in self.lost}

    def split(self, *names: str) -> dict[str, str]:
        """Which part of the data each row is in."""
        return dict(zip(self.kept(*names), (each.split for each in self.rows), strict=True))


def _read(folder: Path, record: type[Any]) -> list[Any]:
    return from_table(record, pa.concat_tables(pq.read_table(part) for part in sorted(folder.glob("part-*.parquet"))))


@pytest.fixture
def ingested(tmp_path: Path) -> Callable[..., Ingested]:
    """Ingests rows, written as Parquet unless the name of the file says otherwise."""
    number = itertools.count()

    def call(rows: Sequence[Any], config: IngestConfig = EASY, name: str = "log.jsonl", **more: str) -> Ingested:
        folder = tmp_path / str(next(number))
        return Ingested(write(folder / name, *rows), folder / "out", config, **more)

    return call


Call = Callable[..., Ingested]


def names(rows: Iterable[dict[str, Any]]) -> list[str]:
    return [each["conversation_hash"] for each in rows]


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_row_becomes_a_conversation(ingested: Call, name: str) -> None:
    assert ingested([row()], name=name).rows == [
        Conversation(
            id=Hasher("").conversation("h1"),
            user_id=Hasher("").user("ann"),
            timestamp=START,
            model="gpt-4",
            language="English",
            split="train",
            messages=(Message("user", "Hi."), Message("assistant", "Hello.")),
        )
    ]


TYPED: list[tuple[str, Any]] = [
    ("not_a_record", row(said=[])),
    ("no_timestamp", row(timestamp=None)),
    ("no_timestamp", row(timestamp="yesterday")),
    ("no_timestamp", row(timestamp="0001-01-01T00:00:00+05:00")),
    ("null_content", row(said=[message("user", None), message("assistant", "Hello.")])),
    ("empty_message", row(said=[message("user", "Hi."), message("assistant", " \n\u00a0")])),
    ("empty_message", row(said=[message("user", ""), message("assistant", "Hello.")])),
    ("repeated_role", row(said=[message("user", "Hi."), message("user", "Well?"), message("assistant", "Hello.")])),
    ("repeated_role", row(said=[message("assistant", "Hello."), message("user", "Hi.")])),
    ("unknown_role", row(said=[message("human", "Hi."), message("assistant", "Hello.")])),
    ("unknown_role", row(said=[message(None, "Hi."), message("assistant", "Hello.")])),
    ("no_user_message", row(said=[message("assistant", "Hello.")])),
    ("no_user_message", row(said=[message("system", "Be kind.")])),
    ("no_answer", row(said=[message("user", "Hi.")])),
    ("no_user_id", row(user=None)),
    ("no_user_id", row(user="")),
]
UNTYPED: list[tuple[str, Any]] = [
    ("not_a_record", None),
    ("not_a_record", ["conversation"]),
    ("not_a_record", row(said="Hi.")),
    ("not_a_record", row(said=["Hi."])),
    ("null_content", row(said=[message("user", 3), message("assistant", "Hello.")])),
    ("unknown_role", row(said=[message(["user"], "Hi."), message("assistant", "Hello.")])),
]


@pytest.mark.parametrize(("reason", "broken"), TYPED + UNTYPED)
def test_broken_row_is_dropped_with_its_place_and_reason(ingested: Call, reason: str, broken: Any) -> None:
    made = ingested([row("h0"), broken, row("h2", user="ben")])
    assert made.kept("h0", "h2") == ["h0", "h2"]
    assert made.dropped() == {"log.jsonl:2": reason}


@pytest.mark.parametrize(("reason", "broken"), TYPED)
def test_parquet_row_is_judged_as_a_json_row_is(ingested: Call, reason: str, broken: Any) -> None:
    made = ingested([row("h0"), broken, row("h2", user="ben")], name="log.parquet")
    assert made.kept("h0", "h2") == ["h0", "h2"]
    assert made.dropped() == {"log.parquet:2": reason}


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_system_message_and_last_word_of_the_user_are_kept(ingested: Call, name: str) -> None:
    said = [
        message("system", "Be kind."),
        message("user", "Hi."),
        message("assistant", "Hello."),
        message("user", "Bye."),
    ]
    (found,) = ingested([row(said=said)], name=name).rows
    assert [each.role for each in found.messages] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_user_is_named_by_the_row_or_by_a_turn(ingested: Call, name: str) -> None:
    said = [message("user", "Hi."), message("assistant", "Yes?", hashed_ip="ben")]
    rows = [row("h1", user=None, said=said), row("h2", user=None), row("h3", user="ann", said=said)]
    made = ingested(rows, EASY, name=name)
    assert [each.user_id for each in made.rows] == [Hasher("").user("ben"), Hasher("").user("ann")]
    assert made.dropped() == {f"{name}:2": "no_user_id"}


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_rows_with_one_hash_differ_by_their_first_turn(ingested: Call, name: str) -> None:
    def numbered(number: int) -> Any:
        said = [message("user", "Hi.", turn_identifier=number), message("assistant", "Yes?", turn_identifier=number)]
        return row(said=said)

    made = ingested([numbered(1), numbered(2), numbered(1)], EASY, name=name)
    assert made.kept("h1 1", "h1 2") == ["h1 1", "h1 2"]
    assert made.dropped("h1 1") == {"h1 1": "duplicate_id"}


def test_row_without_identity_is_named_by_its_place(ingested: Call) -> None:
    nameless = {key: value for key, value in row().items() if key != "conversation_hash"}
    assert ingested([nameless]).kept("log.jsonl:1") == ["log.jsonl:1"]


def test_other_language_is_dropped_unless_all_are_kept(ingested: Call) -> None:
    rows = [row("en"), spoken("fr", "Salut.", "Bonjour.", language="French"), spoken("none", "?", "!", language=None)]
    assert ingested(rows).dropped("fr", "none") == {"fr": "language", "none": "language"}
    assert ingested(rows, replace(EASY, language=None)).dropped() == {}


MIDJOURNEY = [
    PROMPT,
    f"\n  {PROMPT.upper()}",
    "As a prompt generator for a generative AI called 'Midjourney', you write prompts.",
]


@pytest.mark.parametrize("prompt", MIDJOURNEY)
def test_midjourney_prompt_is_dropped_and_talk_about_it_is_not(ingested: Call, prompt: str) -> None:
    rows = [spoken("prompt", prompt, "Sure."), spoken("talk", "What is Midjourney?", "A program.")]
    rows.append(spoken("later", "Hi.", "Hello.", prompt, "Sure."))
    assert ingested(rows).dropped("prompt") == {"prompt": "midjourney"}


def test_ten_exchanges_stay_and_eleven_are_dropped(ingested: Call) -> None:
    rows = [spoken("ten", *["Hi.", "Hello."] * 10), spoken("eleven", *["Hi.", "Hello."] * 11)]
    assert ingested(rows).dropped("eleven") == {"eleven": "too_many_turns"}


def test_users_with_too_few_or_too_many_conversations_are_dropped(ingested: Call) -> None:
    made = ingested(users(2, 3, 4, 5), replace(EASY, min_conversations=3, max_conversations=4))
    assert {each.user_id for each in made.rows} == {Hasher("").user("u1"), Hasher("").user("u2")}
    assert made.output.dropped == {"too_many_conversations": 5, "too_few_conversations": 2}


def test_conversations_per_user_are_counted_after_language_and_midjourney(ingested: Call) -> None:
    rows = [*users(3), spoken("mj", PROMPT, "Sure.", user="u0")]
    rows[0]["language"] = "French"
    with pytest.raises(InputError, match=r"too_few_conversations 2, language 1, midjourney 1"):
        ingested(rows, replace(EASY, min_conversations=3))


def test_conversations_per_user_are_counted_before_turns_and_duplicates(ingested: Call) -> None:
    rows = [
        *users(1),
        spoken("long", *["Hi.", "Hello."] * 11, user="u0"),
        {**users(1)[0], "conversation_hash": "again"},
    ]
    made = ingested(rows, replace(ONCE, min_conversations=3))
    assert made.dropped("long", "again") == {"long": "too_many_turns", "again": "duplicate"}


def test_flagged_rows_are_dropped_by_choice(ingested: Call) -> None:
    rows = [spoken("a", "A.", "B.", toxic=True), spoken("b", "C.", "D.", redacted=True), spoken("c", "E.", "F.")]
    assert ingested(rows).dropped() == {}
    made = ingested(rows, replace(EASY, drop_toxic=True, drop_redacted=True))
    assert made.dropped("a", "b") == {"a": "toxic", "b": "redacted"}


def test_same_text_is_taken_once_and_a_dropped_row_repeats_nothing(ingested: Call) -> None:
    rows = [
        spoken("cut", *["Hi.", "Hello."] * 3),
        spoken("first", "Hi.", "Hello."),
        spoken("second", "Hi.", "Hello.", user="ben"),
        spoken("other", "Hi.", "Hello!"),
    ]
    made = ingested([*rows, {**rows[0], "conversation_hash": "kept"}], replace(ONCE, max_turns=3))
    assert made.dropped("second", "kept") == {"second": "duplicate", "kept": "duplicate"}
    made = ingested([*rows, {**rows[0], "conversation_hash": "long"}], replace(ONCE, max_turns=1))
    assert made.dropped("cut", "second", "long") == {
        "cut": "too_many_turns",
        "second": "duplicate",
        "long": "too_many_turns",
    }
    assert "duplicate" not in ingested(rows, EASY).output.dropped


def test_nearly_the_same_text_is_dropped_by_choice(ingested: Call) -> None:
    long = " ".join(f"word{i}" for i in range(200))
    rows = [
        spoken("first", long, "Hello."),
        spoken("near", f"{long} indeed", "Hello."),
        spoken("far", " ".join(f"other{i}" for i in range(200)), "Hello."),
        spoken("short", "Hi.", "Hello."),
    ]
    assert ingested(rows).dropped() == {}
    assert ingested(rows, replace(EASY, near_duplicates=0.8)).dropped("near") == {"near": "near_duplicate"}


def test_newest_conversations_of_a_user_are_taken_by_choice(ingested: Call) -> None:
    rows = users(4, 2)[::-1]
    made = ingested(rows, replace(EASY, newest=2))
    assert made.dropped("u0c0", "u0c1") == {"u0c1": "conversation_cap", "u0c0": "conversation_cap"}


def test_user_cap_takes_whole_users_and_no_more_than_asked(ingested: Call) -> None:
    made = ingested(users(3, 3, 3, 3), replace(EASY, min_conversations=3, max_users=2))
    assert sorted(Counter(each.user_id for each in made.rows).values()) == [3, 3]
    assert made.output.dropped == {"user_cap": 6}


def test_user_cap_does_not_count_evaluation_users_without_history(ingested: Call) -> None:
    config = IngestConfig(min_conversations=1, eval_share=0.5, eval_min_conversations=4, held_out=1, max_users=5)
    made = ingested(users(*[3] * 40), config)
    assert {each.split for each in made.rows} == {"train"}
    assert len({each.user_id for each in made.rows}) == 5


def test_last_conversations_of_an_evaluation_user_are_held_out(ingested: Call) -> None:
    config = IngestConfig(min_conversations=1, eval_share=1.0, eval_min_conversations=4, held_out=2)
    rows = users(5)[::-1]
    assert ingested(rows, config).split(*names(rows)) == {
        "u0c0": "reference",
        "u0c1": "reference",
        "u0c2": "reference",
        "u0c3": "held-out",
        "u0c4": "held-out",
    }


def test_evaluation_user_without_enough_conversations_is_dropped(ingested: Call) -> None:
    config = IngestConfig(min_conversations=1, eval_share=1.0, eval_min_conversations=4, held_out=2)
    made = ingested(users(3, 4), config)
    assert {each.user_id for each in made.rows} == {Hasher("").user("u1")}
    assert made.output.dropped == {"too_few_conversations": 3}


def test_split_moves_nobody_when_rows_are_reordered_or_users_come_or_the_salt_changes(ingested: Call) -> None:
    config = IngestConfig(min_conversations=1, eval_share=0.5, eval_min_conversations=2, held_out=1)
    rows, more = users(*[3] * 40), users(*[3] * 60)
    before = ingested(rows, config).split(*names(rows))
    assert {"train", "reference", "held-out"} == set(before.values())
    assert ingested(rows[::-1], config).split(*names(rows)) == before
    assert before.items() <= ingested(more, config).split(*names(more)).items()
    assert ingested(rows, config, salt="pepper").split(*names(rows)) == before


def test_seed_chooses_the_evaluation_users() -> None:
    def chosen(seed: int) -> set[str]:
        return {f"u{i}" for i in range(1000) if is_evaluated(f"u{i}", IngestConfig(seed=seed))}

    assert chosen(0) != chosen(1)
    assert 150 < len(chosen(0)) < 250


def test_order_of_rows_is_kept(ingested: Call) -> None:
    rows = users(3, 3, 3)[::-1]
    assert ingested(rows).kept(*names(rows)) == names(rows)


def test_output_holds_no_id_of_the_source_and_the_salt_changes_all(ingested: Call) -> None:
    rows = users(3, 3)
    plain, salted = ingested(rows), ingested(rows, salt="pepper")
    for made in (plain, salted):
        assert not {each.user_id for each in made.rows} & {"u0", "u1"}
        assert not {each.id for each in made.rows} & set(names(rows))
    assert not {each.user_id for each in plain.rows} & {each.user_id for each in salted.rows}
    assert not {each.id for each in plain.rows} & {each.id for each in salted.rows}
    assert salted.kept(*names(rows)) == names(rows)
    assert "RLHI_SALT" in plain.output.notes["ids"]
    assert "ids" not in salted.output.notes


def test_users_are_told_apart_by_browser_or_each_conversation_is_its_own(ingested: Call) -> None:
    rows = users(4)
    for number, each in enumerate(rows):
        each["header"] = {"user-agent": "phone" if number == 3 else "laptop"}
    config = replace(EASY, min_conversations=2)
    for name in ("log.jsonl", "log.parquet"):
        made = ingested(rows, replace(config, user_by="id+agent"), name=name)
        assert made.dropped(*names(rows)) == {"u0c3": "too_few_conversations"}
        anonymous = [{**each, "hashed_ip": None} for each in rows]
        made = ingested(anonymous, replace(EASY, user_by="conversation"), name=name)
        assert len({each.user_id for each in made.rows}) == 4


def test_rows_without_a_time_count_as_the_oldest_where_they_are_kept(ingested: Call) -> None:
    rows = users(3)
    rows[2]["timestamp"] = None
    config = replace(EASY, untimed="keep", eval_share=1.0, eval_min_conversations=3, held_out=2)
    assert ingested(rows, config).split(*names(rows)) == {"u0c0": "held-out", "u0c1": "held-out", "u0c2": "reference"}


def test_forgotten_user_leaves_by_either_id_and_nothing_of_theirs_stays(ingested: Call, tmp_path: Path) -> None:
    rows = users(2, 2, 2)
    listed = tmp_path / "forget.txt"
    listed.write_text(f"# asked in May\nu0\n\n  {Hasher('s').user('u2')}  \nnobody\n")
    made = ingested(rows, salt="s", forget=str(listed))
    assert made.kept(*names(rows)) == ["u1c0", "u1c1"]
    assert set(made.dropped(*names(rows)).values()) == {"forgotten"}
    assert made.output.users == 1


@pytest.mark.parametrize(("text", "said"), [(None, "no such file"), ("# nobody\n", "names no user")])
def test_list_of_users_to_forget_that_names_nobody_is_refused(
    ingested: Call, tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "forget.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        ingested(users(2), forget=str(tmp_path / "forget.txt"))


def test_long_output_is_written_in_parts_and_read_in_order(ingested: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhi.artifacts.GROUP_BYTES", 100)
    monkeypatch.setattr("rlhi.artifacts.PART_BYTES", 10_000)
    monkeypatch.setattr("rlhi.ingest.reader.ROWS", 7)
    rows = users(*[3] * 60)
    made = ingested(rows)
    assert made.kept(*names(rows)) == names(rows)


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.json", "log.parquet"])
def test_every_format_gives_the_same_conversations(ingested: Call, name: str) -> None:
    rows = [row("h1"), spoken("h2", "Salut.", "Bonjour.", user="ben")]
    assert ingested(rows, name=name).rows == ingested(rows).rows


def test_file_that_is_one_json_list_is_read_by_item(ingested: Call, tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text(json.dumps([row("h1"), 7, row("h2", user="ben", said=[])], indent=1))
    made = Ingested(str(tmp_path / "log.json"), tmp_path / "out")
    assert made.kept("h1") == ["h1"]
    assert made.dropped() == {"log.json:2": "not_a_record", "log.json:3": "not_a_record"}


def test_folder_and_glob_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write(logs / "b.jsonl", spoken("h2", "B.", "B."))
    write(logs / "a.parquet", spoken("h1", "A.", "A."))
    write(logs / "deep" / "c.jsonl.gz", spoken("h3", "C.", "C."))
    (logs / "README.md").write_text("about")
    every = ["h1", "h2", "h3"]
    assert Ingested(str(logs), tmp_path / "1").kept(*every) == every
    assert Ingested(f"{logs}/*.jsonl", tmp_path / "2").kept(*every) == ["h2"]
    assert Ingested(f"file://{logs}", tmp_path / "3").kept(*every) == every


def test_line_that_is_no_object_is_dropped_and_a_blank_one_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f"{json.dumps(row())}\n\n{{broken\n[1]\n{json.dumps(row('h2', user='ben', said=[]))}")
    made = Ingested(str(path), tmp_path / "out")
    assert made.output.rows_in == 4
    assert made.dropped() == {f"log.jsonl:{line}": "not_a_record" for line in (3, 4, 5)}


def test_half_of_a_character_and_bytes_that_are_no_text_are_replaced(ingested: Call, tmp_path: Path) -> None:
    rows = [row(said=[message("user", "Hi \ud83d"), message("assistant", "\U0001f600")])]
    assert [each.content for each in ingested(rows).rows[0].messages] == ["Hi ?", "\U0001f600"]
    said = b"Hi \xffHello."
    content = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 4, 10], np.int32)), pa.py_buffer(said))
    turns = pa.StructArray.from_arrays([pa.array(["user", "assistant"]), content], names=["role", "content"])
    broken = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), turns)
    table = pa.table({"conversation": broken, "hashed_ip": ["ann"], "timestamp": [START], "language": ["English"]})
    pq.write_table(table, tmp_path / "log.parquet")
    (found,) = Ingested(str(tmp_path / "log.parquet"), tmp_path / "out").rows
    assert found.messages[0].content == "Hi \N{REPLACEMENT CHARACTER}"


UNREADABLE = [
    ("log.jsonl", b"", r"is empty \(0 bytes\)"),
    ("log.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer.*git lfs pull"),
    ("log.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer.*git lfs pull"),
    ("log.parquet", b"not Parquet at all", "cannot be read as Parquet"),
    ("log.parquet", b"x", "cannot be read as Parquet"),
    ("log.jsonl.gz", b"not gzip at all", "cannot be read as JSONL"),
    ("log.jsonl.gz", gzip.compress(b'{"conversation": []}' * 99, mtime=0)[:-20], "cannot be read as JSONL"),
    ("log.jsonl", b"[1]\n2\n", "holds no JSON object on any line"),
    ("log.jsonl", b"\n\n", "holds no JSON object on any line"),
    ("log.jsonl", b"\xff\xfe\x00x", "holds no JSON object on any line"),
    ("log.jsonl", b'{"messages": []}\n', r"its fields \(messages\) fit no kind of data; give --kind \(wildchat: .*"),
    ("log.jsonl", b'{"conversation": []}\n', r"its fields \(conversation\) fit no kind of data"),
]


@pytest.mark.parametrize(("name", "content", "said"), UNREADABLE)
def test_unreadable_file_is_named_with_what_is_wrong(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{logs / name}: .*{said}"):
        Ingested(str(logs), tmp_path / "out")


WRONG_COLUMNS: list[tuple[dict[str, Any], str]] = [
    ({"hashed_ip": ["ann"]}, "has no column 'conversation'; its columns are hashed_ip"),
    ({"conversation": [[message("user", "Hi.")]]}, "has no column 'hashed_ip'"),
    ({"conversation": ["Hi."], "hashed_ip": ["ann"]}, "column 'conversation' is string, expected a list of messages"),
    ({"conversation": [[{"role": "user"}]], "hashed_ip": ["ann"]}, "have no field 'content'"),
    (
        {"conversation": [[{"role": "user", "content": 1}]], "hashed_ip": ["ann"]},
        "field 'content' of 'conversation' is int64, expected text",
    ),
]


@pytest.mark.parametrize(("columns", "said"), WRONG_COLUMNS)
def test_parquet_with_another_schema_is_named_with_the_field(
    tmp_path: Path, columns: dict[str, Any], said: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    with pytest.raises(InputError, match=f"log.parquet: .*{said}"):
        Ingested(str(tmp_path / "log.parquet"), tmp_path / "out", replace(EASY, kind="wildchat"))


def test_files_of_several_kinds_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "logs" / "a.jsonl", row())
    write(tmp_path / "logs" / "b.jsonl", {"messages": [], "user_id": "ann"})
    with pytest.raises(InputError, match=r"several kinds of data \(.*b\.jsonl is chat-log; .*a\.jsonl is wildchat\)"):
        Ingested(str(tmp_path / "logs"), tmp_path / "out")


def test_chat_log_is_read_by_its_mapping(ingested: Call) -> None:
    turns = [{"who": "human", "said": "Hi."}, {"who": "ai", "said": "Hello."}]
    rows = [{"turns": turns, "meta": {"uid": 7, "at": 1709251200}, "no": "a"}]
    mapping = Mapping(messages="turns", role="who", content="said", user="meta.uid", time="meta.at", id="no")  # type: ignore[arg-type]
    for name in ("log.jsonl", "log.parquet"):
        (found,) = ingested(rows, replace(EASY, mapping=mapping, language=None), name=name).rows
        assert (found.id, found.user_id) == (Hasher("").conversation("a"), Hasher("").user("7"))
        assert (found.timestamp, found.model, found.language) == (START, None, None)
        assert found.messages == (Message("user", "Hi."), Message("assistant", "Hello."))


def test_chat_log_without_users_can_be_read_by_conversation(ingested: Call) -> None:
    turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    rows = [{"messages": turns, "id": f"c{number}", "created_at": 1709251200} for number in range(2)]
    config = replace(EASY, language=None, user_by="conversation")
    assert len({each.user_id for each in ingested(rows, config).rows}) == 2


def test_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for source, said in [
        (f"{tmp_path}/none", "no such file or folder"),
        (f"{tmp_path}/*.jsonl", "no such file or folder"),
        (str(tmp_path), r"no \.parquet, .* among its 1 files, the first is .*notes\.txt"),
        ("ftp://somewhere/log.jsonl", "unknown scheme"),
    ]:
        with pytest.raises(InputError, match=said):
            Ingested(source, tmp_path / "out")


def test_row_of_other_nested_columns_reads_only_what_is_needed(ingested: Call) -> None:
    said = [message("user", "Hi.", header={"user-agent": "x"}, toxic=None), message("assistant", "Hello.")]
    moderation = [{"categories": {"hate/threatening": False, "hate_threatening": None}}]
    (found,) = ingested([row(said=said, openai_moderation=moderation)], name="log.parquet").rows
    assert [each.content for each in found.messages] == ["Hi.", "Hello."]


def test_wildchat_4_8m_schema_is_read(tmp_path: Path) -> None:
    """Times have no zone, a turn has usage and more beside its text, optional fields are null."""
    usage = pa.struct([("total_tokens", pa.int64()), ("details", pa.struct([("role", pa.string())]))])
    turn = pa.struct([("content", pa.string()), ("created", pa.int64()), ("role", pa.string()), ("usage", usage)])
    said = [
        {"content": "Hi.", "role": "user"},
        {"content": "Hello.", "role": "assistant", "usage": {"total_tokens": 3}},
    ]
    columns = {
        "conversation_hash": pa.array(["h1"]),
        "timestamp": pa.array([START.replace(tzinfo=None)], pa.timestamp("us")),
        "conversation": pa.array([said], pa.list_(turn)),
        "language": pa.array(["English"]),
        "toxic": pa.array([None], pa.bool_()),
        "hashed_ip": pa.array(["ann"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    (found,) = Ingested(str(tmp_path / "log.parquet"), tmp_path / "out").rows
    assert (found.timestamp, found.messages) == (START, (Message("user", "Hi."), Message("assistant", "Hello.")))


def test_personal_data_is_replaced_and_counted(ingested: Call) -> None:
    rows = [spoken("a", "Write to jane.roe@mail7.net or bob@mail7.net.", "Sure."), spoken("b", "Hi.", "Hello.")]
    made = ingested(rows)
    assert made.rows[0].messages[0].content == "Write to [EMAIL] or [EMAIL]."
    assert made.output.metrics["personal_data/EMAIL"] == 2
    plain = ingested(rows, replace(EASY, redact=()))
    assert plain.rows[0].messages[0].content == rows[0]["conversation"][0]["content"]


def test_run_writes_what_stays_and_what_does_not(ingested: Call) -> None:
    made = ingested([row("h1"), row("h2", user=None), row("h3", language="French")])
    assert (made.output.rows_in, made.output.kept) == (3, 1)
    assert made.output.dropped == {"no_user_id": 1, "language": 1}
    assert made.output.metrics["users_train"] == 1
    assert made.output.metrics["users_held_out"] == 0


def test_nothing_left_is_an_error_with_the_counts(ingested: Call) -> None:
    said = r"none of 2 conversations is left \(language 1, too_few_conversations 1\)"
    with pytest.raises(InputError, match=said):
        ingested([row(), row("h2", language="French")], IngestConfig())


def test_held_out_share_that_leaves_no_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ingest\.held_out=5 leaves no history"):
        Ingested("nowhere", tmp_path / "out", IngestConfig(held_out=5, eval_min_conversations=5))


def test_solutions_with_an_error_become_conversations_of_their_own_users(tmp_path: Path) -> None:
    package = importlib.util.find_spec("champ_dataset")
    assert package is not None
    assert package.origin is not None
    source = str(Path(package.origin).parent / "dataset_files" / "v0.json")
    made = Ingested(source, tmp_path / "out", IngestConfig(max_solutions=20), salt="s")
    assert all(each.split == "train" and each.messages[-1].role == "user" for each in made.rows)
    assert len({each.user_id for each in made.rows}) == len(made.rows) == 20
    assert made.output.rows_in == 540
    assert made.output.dropped["sample_cap"] > 300


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared, which is absent here")
def test_labelled_solutions_of_prm800k_are_recognised(tmp_path: Path) -> None:
    made = Ingested(str(SHARED / "math" / "prm800k-rows.jsonl"), tmp_path / "out")
    assert made.output.rows_in == 6
    assert made.output.notes["source"] == "The logs were read as prm800k."
    assert [each.role for each in made.rows[0].messages] == ["user", "assistant", "user"]


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared, which is absent here")
def test_real_logs_with_users_are_split_by_user(tmp_path: Path) -> None:
    config = IngestConfig(eval_min_conversations=4, held_out=2)
    made = Ingested(str(SHARED / "realhumaneval"), tmp_path / "out", config)
    assert len(made.rows) + len(made.lost) == 402
    assert {each.split for each in made.rows} == {"train", "reference", "held-out"}
    splits = {(each.user_id, each.split == "train") for each in made.rows}
    assert len(splits) == len({user for user, _ in splits})


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared, which is absent here")
def test_real_logs_without_users_say_so_and_can_be_read_by_conversation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(SHARED / "wildchat-sample")
    assert main(["ingest", "--source", source, "--conversations", str(tmp_path / "out")]) == 2
    assert "no_user_id" in capsys.readouterr().err
    config = replace(EASY, user_by="conversation", untimed="keep", language=None)
    assert Ingested(source, tmp_path / "all", config).output.kept > 250

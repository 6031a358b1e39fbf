from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi.analyze import datasets
from rlhi.errors import InputError
from rlhi.ingest.mapping import Mapping
from rlhi.ingest.reader import open_source, read_frames
from rlhi.sources import content_digest, list_files, uris
from tests.s3_server import client, use

EXAMPLES = Path(__file__).parents[1] / "examples" / "conversations.jsonl"


@pytest.fixture(scope="module")
def logs(s3: str) -> str:
    """The endpoint of an S3 server that holds the examples in bucket ``logs``."""
    filled = client(s3)
    filled.create_bucket(Bucket="logs")
    for name in ("2024/march.jsonl", "2024/readme.txt"):
        filled.put_object(Bucket="logs", Key=name, Body=EXAMPLES.read_bytes())
    return s3


@pytest.fixture
def bucket(logs: str, monkeypatch: pytest.MonkeyPatch) -> str:
    use(logs, monkeypatch)
    return "s3://logs"


def talks(source: str) -> list[object]:
    found = open_source(source, None, Mapping())
    return [talk for frame in read_frames(found, Mapping(), with_agent=False) for talk in frame.messages.to_pylist()]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["", "/2024", "/2024/march.jsonl", "/2024/*.jsonl"])
def test_conversations_are_read_from_s3_as_from_disk(bucket: str, where: str) -> None:
    assert talks(bucket + where) == talks(str(EXAMPLES)) != []


@pytest.mark.slow
def test_contexts_to_compare_with_are_read_from_s3_as_from_disk(bucket: str) -> None:
    (far,), (near,) = (datasets.read(source, 20, 0) for source in (f"{bucket}/2024/march.jsonl", str(EXAMPLES)))
    assert (far.of, far.by_user) == (near.of, near.by_user) == (far.of, True)
    assert len(far.contexts) == 20


@pytest.mark.slow
@pytest.mark.parametrize("where", ["/none", "/2024/*.parquet"])
def test_nothing_at_an_s3_address_is_one_clear_line(bucket: str, where: str) -> None:
    with pytest.raises(InputError, match="no such file or folder, or an empty one"):
        list_files(bucket + where)


@pytest.mark.slow
def test_a_bucket_that_does_not_exist_is_named(bucket: str) -> None:
    with pytest.raises(InputError, match="s3://elsewhere"):
        list_files("s3://elsewhere/logs")


def test_digest_follows_content_and_not_place(tmp_path: Path) -> None:
    copy = tmp_path / EXAMPLES.name
    copy.write_bytes(EXAMPLES.read_bytes())
    assert content_digest(str(copy)) == content_digest(str(EXAMPLES))
    copy.write_bytes(EXAMPLES.read_bytes() + b"\n")
    assert content_digest(str(copy)) != content_digest(str(EXAMPLES))


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(InputError, match="gs://bucket: unknown scheme"):
        list_files("gs://bucket")


@pytest.mark.parametrize("source", ["s3:///logs", "s3://my logs/x.jsonl", "s3://b\0/x", "a\0b", "half \ud83d.jsonl"])
def test_what_can_be_no_address_is_one_clear_line(source: str) -> None:
    with pytest.raises(InputError, match="cannot be listed"):
        list_files(source)


def test_file_whose_name_holds_brackets_is_itself_before_it_is_a_pattern(tmp_path: Path) -> None:
    for name in ("log[1].jsonl", "log1.jsonl"):
        (tmp_path / name).write_text("{}")
    assert [file.name for file in list_files(f"{tmp_path}/log[1].jsonl")] == ["log[1].jsonl"]
    assert [file.name for file in list_files(f"{tmp_path}/log[12].jsonl")] == ["log1.jsonl"]


@given(st.text(st.sampled_from("ab[]*?./:\\{}!-~ \0\ud83d") | st.characters(), max_size=12))
def test_any_source_is_listed_or_an_input_error(text: str) -> None:
    source = f"nowhere/{text.lstrip('/').replace('..', '.').replace('**', '*')}"
    with pytest.raises(InputError):
        list_files(source)


def test_list_of_uris_is_split_at_commas_but_a_path_that_exists_is_one(tmp_path: Path) -> None:
    odd = tmp_path / "a,b.jsonl"
    assert uris(str(odd)) == [f"{tmp_path}/a", "b.jsonl"]
    odd.write_bytes(EXAMPLES.read_bytes())
    assert uris(str(odd)) == [str(odd)]
    assert uris("s3://bucket/a, b.jsonl,") == ["s3://bucket/a", "b.jsonl"]
    assert uris("") == []


def test_digest_of_a_list_follows_its_parts_and_their_order(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text("{}")
    (tmp_path / "two.jsonl").write_text("[]")
    one, two = str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl")
    digests = [content_digest(source) for source in (f"{one},{two}", f"{two},{one}", str(tmp_path), one)]
    assert len(set(digests)) == 4
    assert content_digest(f"{one}, {two}") == digests[0]

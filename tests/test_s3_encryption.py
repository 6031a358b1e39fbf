"""What is written to S3 asks to be encrypted, by whatever writes it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhi.engine.s3 import files
from rlhi.engine.s3.bucket import NEW, Bucket
from rlhi.errors import InputError
from tests.s3_server import Proxy, use

KIND, KEY = "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"


@pytest.fixture
def proxy(bucket: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Leaves out what is asked for: the server has no keys to encrypt by."""
    with Proxy(s3) as proxy:
        use(proxy.url, monkeypatch)
        proxy.fault = lambda method, path: "no encryption"
        yield proxy


def asked(proxy: Proxy) -> list[tuple[str | None, str | None]]:
    """Kind and key that writes have asked for."""
    writes = ("PUT", "POST")
    told = [headers for (method, _), headers in zip(proxy.seen, proxy.headers, strict=True) if method in writes]
    return [(headers.get(KIND), headers.get(KEY)) for headers in told]


def test_writes_ask_for_what_is_set(proxy: Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_S3_SSE", "AES256")
    at = Bucket(bucket)
    at.put("one", b"1")
    at.put("two", b"2", condition=NEW)
    assert asked(proxy) == [("AES256", None)] * 2
    assert at.get("one").body == b"1"


def test_files_in_parts_ask_for_it_where_they_begin(
    proxy: Proxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_S3_SSE", "AES256")
    monkeypatch.setattr(files, "PART", 5 << 20)
    (tmp_path / "file").write_bytes(b"x" * (6 << 20))
    files.Files(bucket).upload("file", tmp_path / "file")
    begun, *parts, ended = asked(proxy)
    assert begun == ("AES256", None)
    assert len(parts) == 2
    assert {*parts, ended} == {(None, None)}
    files.Files(bucket).download("file", tmp_path / "back", 6 << 20)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


def test_key_of_kms_is_named(proxy: Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_S3_SSE", "aws:kms")
    monkeypatch.setenv("RLHI_S3_SSE_KMS_KEY_ID", "arn:aws:kms:eu-central-1:111122223333:key/test")
    at = Bucket(bucket)
    at.put("one", b"1")
    assert asked(proxy) == [("aws:kms", "arn:aws:kms:eu-central-1:111122223333:key/test")]


def test_without_a_setting_it_is_left_to_the_bucket(proxy: Proxy, bucket: str) -> None:
    Bucket(bucket).put("one", b"1")
    assert asked(proxy) == [(None, None)]


@pytest.mark.parametrize(
    ("kind", "key", "said"),
    [
        ("aes", "", "RLHI_S3_SSE=aes: is no encryption of S3; give AES256, aws:kms"),
        (
            "",
            "arn:test",
            r"RLHI_S3_SSE_KMS_KEY_ID=arn:test: is not used with RLHI_S3_SSE=\(not set\); set that to aws:kms",
        ),
        ("AES256", "arn:test", "is not used with RLHI_S3_SSE=AES256"),
    ],
)
def test_setting_that_cannot_be_is_refused(kind: str, key: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_S3_SSE", kind)
    monkeypatch.setenv("RLHI_S3_SSE_KMS_KEY_ID", key)
    with pytest.raises(InputError, match=said):
        Bucket("s3://bucket/prefix")

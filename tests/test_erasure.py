import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from pipelines import erasure
from pipelines.__main__ import main as pipelines
from rlhi.artifacts import Input, user_rows
from rlhi.cli import main
from rlhi.engine.s3.store import SharedStore
from rlhi.errors import InputError
from rlhi.ingest.identity import Hasher
from rlhi.records import Conversation, Turn
from tests.s3_server import client, use
from tests.test_ingest import spoken, users, write


def copied_to_mlflow(work: Path, output: Path) -> Path:
    """What tracking leaves of an output in the MLflow of the folder."""
    copy = work / "mlflow-artifacts" / output.name / "artifacts"
    copy.mkdir(parents=True)
    (copy / "manifest.json").write_text((output / "manifest.json").read_text())
    (copy / "report.html").write_text("what u1 said")
    return copy


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which u0, u1 and u2 were ingested, and their messages labelled."""
    work = tmp_path / "work"
    monkeypatch.setenv("RLHI_SALT", erasure.salt_of(work))
    monkeypatch.setenv("RLHI_STORE", str(work / "store"))
    run(work, "first")
    return work


def run(work: Path, name: str, forget: str = "") -> Path:
    """Ingests and labels what the three users wrote, by ``rlhi`` as a container would; gives the folder of the run."""
    folder = work / "runs" / name
    source = write(work / "logs.jsonl", *users(2, 3, 4))
    script = work / "script.json"
    script.write_text(json.dumps([{"contains": "", "reply": "[[New]]"}]))
    config = json.dumps({"min_conversations": 1, "eval_share": 0})
    argv = ["ingest", "--source", source, "--conversations", str(folder / "ingest"), "--config", config]
    assert main([*argv, "--forget", forget]) == 0
    config = json.dumps({"engine": {"kind": "scripted", "script": str(script)}, "meaningful_feedback": False})
    argv = ["classify", "--conversations", str(folder / "ingest"), "--turns", str(folder / "classify")]
    assert main([*argv, "--config", config]) == 0
    return folder


def test_every_output_lists_its_users_with_their_rows(work: Path) -> None:
    hasher = Hasher(erasure.salt_of(work))
    expected = {hasher.user("u0"): 2, hasher.user("u1"): 3, hasher.user("u2"): 4}
    assert user_rows(work / "runs" / "first" / "ingest") == expected
    assert user_rows(work / "runs" / "first" / "classify") == expected
    assert Input(work / "runs" / "first" / "classify", Turn).manifest.users == 3


@pytest.mark.parametrize("named", ["u1", "ours"])
def test_outputs_that_hold_a_user_are_found_by_either_id(work: Path, named: str) -> None:
    user = Hasher(erasure.salt_of(work)).user("u1") if named == "ours" else named
    found = erasure.holding(work, [user])
    assert {path.parent.name for path in found} == {"store", "first"}
    assert len(found) == 4
    assert set(found.values()) == {3}
    assert erasure.holding(work, ["somebody else"]) == {}


def test_forgotten_user_is_gone_from_every_file_and_later_runs(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = work.parent / "who.txt"
    listed.write_text("u1\n")
    copy = copied_to_mlflow(work, work / "runs" / "first" / "classify")
    assert pipelines(["forget", str(listed), "--work", str(work)]) == 0
    assert "nothing is deleted yet" in capsys.readouterr().out
    assert len(erasure.holding(work, ["u1"])) == 4
    assert pipelines(["forget", str(listed), "--work", str(work), "--yes"]) == 0
    assert "deleted 4 outputs and all stored replies" in capsys.readouterr().out
    assert not copy.exists()
    assert not list((work / "store").glob("replies.sqlite*"))
    assert erasure.holding(work, ["u1"]) == {}
    again = run(work, "second", erasure.listed(work, ""))
    assert erasure.holding(work, ["u1"]) == {}
    assert len({row.user_id for row in Input(again / "ingest", Conversation).read()}) == 2
    assert Input(again / "ingest", Conversation).manifest.dropped == {"forgotten": 3}


def test_replies_stored_elsewhere_are_forgotten_too(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = work.parent / "elsewhere.sqlite"
    monkeypatch.setenv("RLHI_REPLIES", str(elsewhere))
    shutil.rmtree(work / "store" / next(path.name for path in (work / "store").glob("classify-*")))
    run(work, "second")
    assert elsewhere.exists()
    assert erasure.remove_replies(work)
    assert not elsewhere.exists()
    assert not erasure.remove_replies(work)


@pytest.mark.slow
def test_replies_on_s3_are_forgotten_and_what_others_keep_there_is_not(
    work: Path, s3: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(s3, monkeypatch)
    direct = client(s3)
    direct.create_bucket(Bucket="forgetful")
    direct.put_object(Bucket="forgetful", Key="mine/data.parquet", Body=b"mine")
    monkeypatch.setenv("RLHI_REPLIES", "s3://forgetful/mine")
    monkeypatch.setenv("RLHI_CACHE", str(work.parent / "cache"))
    with (store := SharedStore("s3://forgetful/mine", "some model")).claim([b"key"]):
        store.put(b"key", "what u1 said")
    left = work.parent / "cache" / "replies" / "some" / "left"  # by a stage that was killed
    left.parent.mkdir(parents=True)
    for end in (".sqlite", ".lock"):
        left.with_suffix(end).touch()
    assert len(direct.list_objects_v2(Bucket="forgetful")["Contents"]) > 1
    listed = work.parent / "who.txt"
    listed.write_text("u1\n")
    assert pipelines(["forget", str(listed), "--work", str(work), "--yes"]) == 0
    assert "all stored replies" in capsys.readouterr().out
    assert [item["Key"] for item in direct.list_objects_v2(Bucket="forgetful")["Contents"]] == ["mine/data.parquet"]
    assert list(left.parent.iterdir()) == []


def test_users_to_forget_add_up(work: Path) -> None:
    assert erasure.listed(work, "") == ""
    given = work.parent / "who.txt"
    given.write_text("u1\n")
    assert erasure.listed(work, str(given)) == str(given)
    erasure.remember(work, ["u0"])
    assert Path(erasure.listed(work, str(given))).read_text() == "u0\nu1\n"


def test_salt_is_made_once_for_its_owner_only_and_the_environments_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RLHI_SALT", raising=False)
    first = erasure.salt_of(tmp_path)
    assert len(first) == 64
    assert erasure.salt_of(tmp_path) == first
    assert stat.S_IMODE(os.stat(tmp_path / "salt").st_mode) == 0o600
    monkeypatch.setenv("RLHI_SALT", "other")
    assert erasure.salt_of(tmp_path) == "other"


def test_another_salt_is_another_output_and_is_written_down_nowhere(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    salt = erasure.salt_of(work)
    monkeypatch.setenv("RLHI_SALT", "pepper")
    second = run(work, "second")
    assert (
        Input(second / "ingest", Conversation).manifest.digest
        != Input(work / "runs" / "first" / "ingest", Conversation).manifest.digest
    )
    for path in work.rglob("manifest.json"):
        assert salt not in path.read_text()
        assert "pepper" not in path.read_text()


def test_user_of_whom_only_an_unread_reply_is_left_is_found_too(work: Path) -> None:
    script, out = work / "unread.json", work / "runs" / "unread" / "classify"
    script.write_text(json.dumps([{"contains": "", "reply": "No idea."}]))
    config = {"engine": {"kind": "scripted", "script": str(script)}, "method": "generate", "meaningful_feedback": False}
    source = write(work / "long.jsonl", spoken("x", "Hi.", "Hello.", "Ho.", "Hello.", user="u9"))
    talks = work / "runs" / "unread" / "ingest"
    flags = ["--min_conversations", "1", "--eval_share", "0"]
    assert main(["ingest", "--source", source, "--conversations", str(talks), *flags]) == 0
    assert main(["classify", "--conversations", str(talks), "--turns", str(out), "--config", json.dumps(config)]) == 0
    assert (out / "unread.jsonl").exists()
    assert out in erasure.holding(work, ["u9"])


def test_output_without_its_list_of_users_cannot_tell(work: Path) -> None:
    (work / "runs" / "first" / "ingest" / "users.parquet").unlink()
    with pytest.raises(InputError, match=r"first/ingest/users\.parquet: cannot be read"):
        erasure.holding(work, ["u1"])

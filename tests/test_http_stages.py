"""A stage whose engine is a server, as a container runs it."""

import random
from pathlib import Path
from typing import Any

import pytest

from rlhi.artifacts import Input
from rlhi.cli import main
from rlhi.records import Turn
from tests.chat_server import ChatServer

EXAMPLES = Path(__file__).parents[1] / "examples" / "conversations.jsonl"
KEY = "sk-secret-of-the-stage"


def label(body: dict[str, Any], sample: int) -> str:
    """Any of the choices, the same for the same question."""
    choices: list[str] = body["structured_outputs"]["choice"]
    return random.Random(str(body["messages"])).choice(choices)


@pytest.fixture
def conversations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    config = '{"min_conversations": 1, "eval_share": 0}'
    argv = ["ingest", "--source", str(EXAMPLES), "--conversations", str(tmp_path / "ingest"), "--config", config]
    assert main(argv) == 0
    return tmp_path / "ingest"


def classify(conversations: Path, out: Path, server: ChatServer, *flags: str) -> int:
    argv = ["classify", "--conversations", str(conversations), "--turns", str(out), "--engine.kind", "openai"]
    argv += ["--engine.model.id", "judge", "--engine.server.url", server.url, *flags]
    return main(argv)


def test_turns_are_labelled_by_a_server_that_stumbles_as_by_one_that_does_not(
    conversations: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(label) as good:
        assert classify(conversations, tmp_path / "good", good) == 0
    with ChatServer(label, lambda number: "garble" if number % 7 == 0 else None) as bad:
        assert classify(conversations, tmp_path / "bad", bad) == 0
    turns = Input(tmp_path / "good", Turn).read()
    assert {turn.label for turn in turns} > {"initial", "new", "positive feedback"}
    assert Input(tmp_path / "bad", Turn).read() == turns
    assert good.headers[0]["Authorization"] == f"Bearer {KEY}"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in written
    assert KEY not in "".join(capfd.readouterr())


def test_answers_without_a_label_are_dropped(conversations: Path, tmp_path: Path) -> None:
    with ChatServer(lambda body, k: "I would rather not say.") as server:
        assert classify(conversations, tmp_path / "out", server) == 0
    dropped = Input(tmp_path / "out", Turn).read_dropped()
    assert {row.reason for row in dropped} == {"unreadable_label"}
    assert {turn.label for turn in Input(tmp_path / "out", Turn).read()} == {"initial"}


def test_cap_ends_the_stage_in_one_line_and_leaves_no_output(
    conversations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(label) as server:
        assert classify(conversations, tmp_path / "out", server, "--engine.server.max_tokens_total", "1000") == 2
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "max_tokens_total=1000: the next request could pass it" in told
    assert not (tmp_path / "out").exists()

"""A stage whose engine is a server, as a container runs it."""

import random
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest
from rlhi.artifacts import Input
from rlhi.cli import main
from rlhi.engine import tally
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


def test_what_was_sent_and_what_it_cost_is_in_the_manifest(conversations: Path, tmp_path: Path) -> None:
    prices = ("--engine.server.price_in", "1000", "--engine.server.price_out", "2000")
    with ChatServer(label, lambda number: "500" if number == 3 else None) as server:
        assert classify(conversations, tmp_path / "out", server, *prices) == 0
    found = manifest.load(tmp_path / "out").metrics
    answered = len(server.bodies) - 1
    assert {name: n for name, n in found.items() if name.startswith(tally.PREFIXES) and "per_s" not in name} == {
        "replies/asked": answered,
        "replies/stored": 0,
        "tokens/prompt": 10 * answered,
        "tokens/prefix_cached": 4 * answered,
        "tokens/generated": 5 * answered,
        "requests/sent": answered + 1,
        "requests/retried/500": 1,
        "cost/usd": pytest.approx((10 * 1000 + 5 * 2000) * answered / 1e6),
    }


def test_refusals_of_a_filter_are_counted_by_their_cause(conversations: Path, tmp_path: Path) -> None:
    refused = {"message": {"content": ""}, "finish_reason": "content_filter"}
    with ChatServer(lambda body, k: refused) as server:
        assert classify(conversations, tmp_path / "out", server) == 0
    metrics = manifest.load(tmp_path / "out").metrics
    assert metrics["requests/unanswered/content_filter"] == metrics["replies/asked"] == len(server.bodies)


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

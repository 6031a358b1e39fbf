"""Stages whose server fails in every way at once: each row ends in the output, or dropped for what happened to it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest
from rlhi.artifacts import Input
from rlhi.cli import main
from rlhi.records import Candidates, Conversation, Persona, Turn
from tests.chat_server import ChatServer, Fault
from tests.test_http_resume import Run, says
from tests.test_http_stages import classify, conversations

__all__ = ["conversations"]
FILTERED = {"message": {"content": ""}, "finish_reason": "content_filter"}
NO_ANSWER = {"no": "message"}
QUICK = ("--engine.server.deadline", "2.5", "--engine.server.timeout", "0.3", "--engine.server.concurrency", "32")


class BadServer(ChatServer):
    """A tenth of errors, a twentieth hangs, bodies cut or garbled and a burst of 429, each gone with the next try.

    It never answers the prompt ``poison``, and its filter refuses the prompt ``filtered``.
    """

    def __init__(self, poison: str = "", filtered: str = "") -> None:
        super().__init__(self.say, self.fail, retry_after="0.1")
        self._said: dict[str, dict[str, Any]] = {poison: NO_ANSWER, filtered: FILTERED}
        self._tried: set[str] = set()

    def say(self, body: dict[str, Any], sample: int) -> str | dict[str, Any]:
        return self._said.get(asked(body)) or says(body, sample)

    def fail(self, number: int) -> Fault | None:
        question = asked(self.bodies[number])
        if question in self._tried:
            return None
        self._tried.add(question)
        drawn = random.Random(question).random()
        shares: list[tuple[Fault, float]] = [("500", 0.10), ("hang", 0.15), ("truncate", 0.17), ("garble", 0.19)]
        burst: Fault | None = "429" if 20 <= number < 28 else None
        return next((fault for fault, share in shares if drawn < share), burst)


def asked(body: dict[str, Any]) -> str:
    """The prompt that a body asks with."""
    return str([message["content"] for message in body["messages"]])


def rows(folder: Path) -> tuple[list[Turn], dict[str, str]]:
    """What was kept, and why the others were dropped."""
    found = Input(folder, Turn)
    return found.read(), {row.id: row.reason for row in found.read_dropped()}


def test_every_row_of_a_stage_is_labelled_or_dropped_for_what_its_server_did(
    conversations: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = (*QUICK, "--meaningful_feedback", "false")
    with ChatServer(says) as good:
        assert classify(conversations, tmp_path / "good", good, *flags) == 0
    poison, filtered = (asked(good.bodies[place]) for place in (3, 11))
    labelled, nothing = rows(tmp_path / "good")
    assert len(good.bodies) > 60
    assert nothing == {}

    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    monkeypatch.setenv("RLHI_STORE", str(tmp_path / "store"))
    with BadServer(poison, filtered) as bad:
        assert classify(conversations, tmp_path / "bad", bad, *flags) == 0
    kept, dropped = rows(tmp_path / "bad")
    assert sorted(dropped.values()) == ["filtered", "unanswered"]
    assert {turn.id for turn in kept} == {turn.id for turn in labelled} - dropped.keys()
    described = manifest.load(tmp_path / "bad")
    assert (described.rows_in, described.kept) == (len(labelled), len(labelled) - 2)
    causes = {name.removeprefix("requests/"): n for name, n in described.metrics.items() if "requests/" in name}
    assert {name.removeprefix("retried/") for name in causes if name.startswith("retried/")} == {
        *("500", "429", "timeout", "truncated", "invalid JSON", "no chat completion")
    }
    assert (causes["unanswered/content_filter"], causes["unanswered/no chat completion"]) == (1, 1)
    assert described.metrics["replies/given_up"] == 1
    assert not list((tmp_path / "store").glob("classify-*"))  # nobody else is to be left without this row

    with BadServer(poison) as again:  # it would answer what was filtered, if it were asked
        assert classify(conversations, tmp_path / "again", again, *flags, "--engine.server.deadline", "0.6") == 0
    assert rows(tmp_path / "again") == (kept, dropped)
    assert {asked(body) for body in again.bodies} == {poison}
    with ChatServer(says) as mended:
        assert classify(conversations, tmp_path / "mended", mended, *flags) == 0
        assert classify(conversations, tmp_path / "reused", mended, *flags) == 0
    assert [asked(body) for body in mended.bodies] == [poison]
    assert len(list((tmp_path / "store").glob("classify-*"))) == 1
    assert list(rows(tmp_path / "mended")[1].values()) == ["filtered"]


STAGES: dict[str, tuple[str, Any, tuple[str, ...], dict[str, str]]] = {
    "persona": ("personas", Persona, (), {"conversations": "ingest"}),
    "reconstruct": ("reconstructed", Conversation, (), {"conversations": "ingest", "turns": "classify"}),
    "rewrite": (
        "rewrites",
        Candidates,
        (),
        {"conversations": "reconstruct", "turns": "classify", "personas": "persona"},
    ),
    "sample": (
        "samples",
        Candidates,
        ("--n", "6"),
        {"conversations": "reconstruct", "turns": "classify", "personas": "persona"},
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every stage makes of a good server."""
    folder: Path = tmp_path_factory.mktemp("good")
    with ChatServer(says) as server:
        Run(folder, server).all()
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_rows_that_a_server_does_not_answer_are_dropped_for_that_reason(good: Path, tmp_path: Path, stage: str) -> None:
    output, record, flags, inputs = STAGES[stage]
    expected = {row.id for row in Input(good / stage, record).read_dropped()}

    def run(server: ChatServer, out: Path) -> dict[str, str]:
        argv = [stage, f"--{output}", str(out), "--engine.kind", "openai", "--engine.model.id", "judge"]
        argv += [part for name, made_by in inputs.items() for part in (f"--{name}", str(good / made_by))]
        argv += ["--engine.server.url", server.url, "--engine.server.deadline", "0.6", *flags]
        assert main(argv) == 0
        return {row.id: row.reason for row in Input(out, record).read_dropped() if row.id not in expected}

    with ChatServer(says) as same:
        assert run(same, tmp_path / "same") == {}
    poison, filtered = (asked(same.bodies[place]) for place in (0, 1))
    with ChatServer(answering({poison: NO_ANSWER, filtered: FILTERED})) as server:
        assert sorted(run(server, tmp_path / "bad").values()) == ["filtered", "unanswered"]


def answering(instead: dict[str, dict[str, Any]]) -> Callable[[dict[str, Any], int], str | dict[str, Any]]:
    return lambda body, sample: instead.get(asked(body)) or says(body, sample)

"""A stage whose engine is a server, behind the store of replies: what was answered is not asked, or paid, again."""

import random
from pathlib import Path
from typing import Any

import pytest

from rlhi.artifacts import Input
from rlhi.cli import main
from rlhi.records import Candidates, Conversation, Persona, Turn
from tests.chat_server import ChatServer
from tests.test_http_stages import EXAMPLES, label


def says(body: dict[str, Any], sample: int) -> str:
    """A label where one is asked for, else some text that hangs on question and seed."""
    if "structured_outputs" in body:
        return label(body, sample)
    return f"Answer {random.Random(str(body['messages']) + str(body['seed'] + sample)).random()}"


class Run:
    def __init__(self, folder: Path, server: ChatServer) -> None:
        self.folder, self.server = folder, server

    def __call__(self, stage: str, output: str, *flags: str, **inputs: str) -> int:
        argv = [stage, f"--{output}", str(self.folder / stage)]
        argv += [part for name, made_by in inputs.items() for part in (f"--{name}", str(self.folder / made_by))]
        argv += ["--engine.kind", "openai", "--engine.model.id", "judge", "--engine.server.url", self.server.url]
        return main([*argv, *flags])

    def all(self) -> None:
        config = '{"min_conversations": 1, "eval_share": 0}'
        argv = ["ingest", "--source", str(EXAMPLES), "--conversations", str(self.folder / "ingest")]
        assert main([*argv, "--config", config]) == 0
        assert self("classify", "turns", "--meaningful_feedback", "false", conversations="ingest") == 0
        assert self("persona", "personas", conversations="ingest") == 0
        assert self("reconstruct", "reconstructed", conversations="ingest", turns="classify") == 0
        inputs = {"conversations": "reconstruct", "turns": "classify", "personas": "persona"}
        assert self("rewrite", "rewrites", **inputs) == 0
        assert self("sample", "samples", "--n", "6", **inputs) == 0


def test_every_stage_says_the_same_of_a_bad_server(tmp_path: Path) -> None:
    with ChatServer(says) as good:
        Run(tmp_path / "good", good).all()
    with ChatServer(says, lambda number: "garble" if number % 10 == 0 else None) as bad:
        Run(tmp_path / "bad", bad).all()
    stages = {"classify": Turn, "persona": Persona, "reconstruct": Conversation, "rewrite": Candidates}
    for stage, record in {**stages, "sample": Candidates}.items():
        rows: list[Any] = Input(tmp_path / "good" / stage, record).read()
        assert rows
        assert Input(tmp_path / "bad" / stage, record).read() == rows, stage


def test_capped_stage_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(says) as server:
        run = Run(tmp_path, server)
        run.all()
        whole = [body for body in server.bodies if body.get("n") == 6]
        server.bodies.clear()
        monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
        (tmp_path / "sample").rename(tmp_path / "undisturbed")
        inputs = {"conversations": "reconstruct", "turns": "classify", "personas": "persona"}
        flags = ("--n", "6", "--engine.server.max_tokens_total", "7000")
        codes: list[int] = []
        while codes[-1:] != [0]:
            codes.append(run("sample", "samples", *flags, **inputs))
            assert len(codes) < 20
    assert codes.count(2) >= 2
    assert len(server.bodies) == len(whole)
    assert {str(body) for body in server.bodies} == {str(body) for body in whole}
    samples = [Input(tmp_path / name, Candidates).read() for name in ("sample", "undisturbed")]
    assert samples[0] == samples[1]


def test_stage_whose_server_goes_away_says_so_and_goes_on_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(says) as server:
        run = Run(tmp_path, server)
        run.all()
        whole = [body for body in server.bodies if body.get("n") == 6]
    (tmp_path / "sample").rename(tmp_path / "undisturbed")
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    inputs = {"conversations": "reconstruct", "turns": "classify", "personas": "persona"}
    half = len(whole) // 2
    capsys.readouterr()
    with ChatServer(says, lambda number: "500" if number >= half else None) as away:
        flags = ("--n", "6", "--engine.server.give_up_after", "0.3")
        assert Run(tmp_path, away)("sample", "samples", *flags, **inputs) == 2
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"{away.url}: no answer in " in told
    assert not (tmp_path / "sample").exists()
    with ChatServer(says) as back:
        assert Run(tmp_path, back)("sample", "samples", "--n", "6", **inputs) == 0
    assert len(back.bodies) == len(whole) - half
    samples = [Input(tmp_path / name, Candidates).read() for name in ("sample", "undisturbed")]
    assert samples[0] == samples[1]

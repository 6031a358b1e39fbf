"""A stage whose replies are on an S3 server that goes away."""

import gc
import json
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from rlhi import manifest
from rlhi.cli import main
from rlhi.engine.s3 import bucket, parts
from rlhi.engine.s3 import store as shared
from tests.s3_server import Proxy, client, use
from tests.test_ingest import users, write

pytestmark = pytest.mark.slow
USERS = 100


class Stage:
    """Infers personas, one question for each user, by a model that takes some milliseconds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "asked.txt"
        source = write(folder / "logs.jsonl", *users(*[2] * USERS))
        flags = ["--min_conversations", "1", "--eval_share", "0"]
        assert main(["ingest", "--source", source, "--conversations", str(folder / "talks"), *flags]) == 0
        rules = [{"contains": "", "reply": "- likes figs"}]
        self.script = folder / "script.json"
        self.script.write_text(json.dumps({"rules": rules, "delay": 0.005, "log": str(self.log)}))

    def __call__(self, out: str) -> int:
        argv = ["persona", "--conversations", str(self.folder / "talks"), "--personas", str(self.folder / out)]
        code = main([*argv, "--engine.kind", "scripted", "--engine.script", str(self.script)])
        gc.collect()  # as a process that ends leaves nothing open
        return code

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def stage(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(bucket, "FIRST_WAIT", 0.02)
    for module in (bucket, shared):
        monkeypatch.setattr(module, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(parts, "EVERY", 0.05)
    monkeypatch.setenv("RLHI_REPLIES", f"s3://staged/{tmp_path.name}")
    monkeypatch.setenv("RLHI_CACHE", str(tmp_path / "cache"))
    with suppress(ClientError):  # it is there
        client(s3).create_bucket(Bucket="staged")
    return Stage(tmp_path)


def away(proxy: Proxy, stage: Stage, seconds: float | None) -> threading.Thread:
    """Takes the server away once a fifth of the questions was asked."""

    def work() -> None:
        while len(stage.asked()) < USERS / 5:
            time.sleep(0.01)
        proxy.fault = lambda method, path: "503"
        if seconds is not None:
            time.sleep(seconds)
            proxy.fault = lambda method, path: None

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_stage_goes_on_while_the_server_is_away(stage: Stage, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(s3) as proxy:
        use(proxy.url, monkeypatch)
        thread = away(proxy, stage, 1)
        assert stage("out") == 0
        thread.join()
        assert len(stage.asked()) == USERS
        assert stage("again") == 0
    assert len(stage.asked()) == USERS
    assert manifest.load(stage.folder / "again").digest == manifest.load(stage.folder / "out").digest


def test_stage_ends_when_the_server_stays_away_and_goes_on_where_it_was(
    stage: Stage, s3: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bucket, "PATIENCE", 0.1)
    monkeypatch.setattr(shared, "LAST", 0.0)
    with Proxy(s3) as proxy:
        use(proxy.url, monkeypatch)
        thread = away(proxy, stage, None)
        assert stage("out") == 2
        thread.join()
        (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert f"s3://staged/{stage.folder.name}/" in told
        assert f"at {proxy.url}: no answer in " in told
        assert not (stage.folder / "out").exists()
        asked = len(stage.asked())
        assert asked < USERS
        proxy.fault = lambda method, path: None
        monkeypatch.setattr("rlhi.engine.store.START", "a new start")
        monkeypatch.setattr("rlhi.engine.s3.claims.START", "a new start")
        assert stage("out") == 0
    assert set(Counter(stage.asked()).values()) == {1}
    assert len(stage.asked()) == USERS
    assert not list((stage.folder / "cache" / "replies").rglob("*.sqlite"))

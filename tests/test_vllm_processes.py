"""vLLM in processes of its own, as on a GPU: a stage that is killed, two copies of the model, and vLLM's own server."""

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from rlhi import manifest
from rlhi.artifacts import Input
from rlhi.cli import main
from rlhi.config import ModelConfig, SamplingConfig, ServerConfig, VllmConfig
from rlhi.engine import Request, choose, generate
from rlhi.engine.http.engine import HttpEngine
from rlhi.engine.vllm.engine import VllmEngine
from rlhi.errors import InputError
from rlhi.records import Turn
from tests.conftest import VLLM, write_model
from tests.rows import messages
from tests.test_ingest import spoken, write
from tests.vllm_server import vllm_server

pytestmark = VLLM
SAMPLING = SamplingConfig(temperature=1.0, top_p=0.95, max_tokens=12)
REQUESTS = [Request(f"r{i}", messages(f"Name fruit number {i}, please.")) for i in range(24)]
CHOICES = ["[[New]]", "[[Positive feedback]]", "[[Positive number]]"]
ROWS = 40


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_NO_USAGE_STATS", "1")
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return ModelConfig(id=str(write_model(tmp_path_factory.mktemp("model"), 128)))


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talks")
    rows = [spoken(f"c{i}", f"Fruit {i}?", "A fig.", "Shorter.", "Fig.", "Longer.", user=f"u{i}") for i in range(ROWS)]
    source = write(folder / "logs.jsonl", *rows)
    config = '{"min_conversations": 1, "eval_share": 0}'
    assert main(["ingest", "--source", source, "--conversations", str(folder / "out"), "--config", config]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def server(model: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of vLLM's own server."""
    with vllm_server(model.id, tmp_path_factory.mktemp("server") / "log.txt") as url:
        yield url


def classify(conversations: Path, out: Path, *flags: str) -> list[str]:
    argv = ["classify", "--conversations", str(conversations), "--turns", str(out), *flags]
    return [*argv, "--meaningful_feedback", "false"]


def below(pid: int) -> list[int]:
    """The processes that ``pid`` started, and those that they started."""
    with suppress(OSError):
        own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return own + [each for child in own for each in below(child)]
    return []


def test_copies_of_the_model_answer_like_vllms_own_server(model: ModelConfig, server: str) -> None:
    http = HttpEngine(ModelConfig(id="tiny"), ServerConfig(url=server, concurrency=8))
    said = generate(http, REQUESTS, SAMPLING, 3, 7)
    engine = VllmEngine(model, VllmConfig(data_parallel=2))
    found = generate(engine, REQUESTS, SAMPLING, 3, 7)
    texts = [[whole(reply.text) for reply in own] for own in found]
    assert texts == [[whole(reply.text) for reply in own] for own in said]
    cut = [(r, s) for own, other in zip(found, said, strict=True) for r, s in zip(own, other, strict=True)]
    for ours, theirs in [pair for pair in cut if pair[0].finish_reason == "length"]:
        assert theirs.finish_reason == "length"
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)
    resumed = list(http.stream(REQUESTS[:2], SAMPLING, [[2], [0, 2]], 7))
    assert {(i, k, whole(r.text)) for i, k, r in resumed} == {
        (0, 2, texts[0][2]),
        (1, 0, texts[1][0]),
        (1, 2, texts[1][2]),
    }
    assert len(choose(engine, REQUESTS, CHOICES)) == len(REQUESTS)
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(InputError, match=r"^vllm has stopped: .*; what was answered before is kept$"):
        generate(engine, REQUESTS, SAMPLING, 3, 7)


def test_server_chooses_one_of_the_choices(server: str) -> None:
    http = HttpEngine(ModelConfig(id="tiny"), ServerConfig(url=server, concurrency=8))
    for scores in choose(http, REQUESTS, CHOICES):
        assert not isinstance(scores, str)
        first, second = sorted(scores, reverse=True)[:2]
        assert first > second
        assert first <= 0


def test_turns_are_labelled_by_vllms_own_server(conversations: Path, tmp_path: Path, server: str) -> None:
    flags = ["--engine.kind", "openai", "--engine.model.id", "tiny", "--engine.server.url", server]
    assert main(classify(conversations, tmp_path / "out", *flags)) == 0
    assert len(Input(tmp_path / "out", Turn).read()) == 3 * ROWS


def test_killed_stage_leaves_no_process_and_goes_on_with_what_is_missing(
    model: ModelConfig, conversations: Path, tmp_path: Path
) -> None:
    flags = ["--engine.kind", "vllm", "--engine.model.id", model.id, "--method", "generate"]
    argv = [sys.executable, "-m", "rlhi.cli", *classify(conversations, tmp_path / "out", *flags)]
    store = tmp_path / "replies.sqlite"
    env = {**os.environ, "RLHI_REPLIES": str(store)}
    process = subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL)
    while stored(store) < 5:
        assert process.poll() is None
        time.sleep(0.05)
    children = below(process.pid)
    assert children
    process.kill()
    process.wait()
    kept = stored(store)
    assert kept < 2 * ROWS
    subprocess.run(argv, env=env, check=True, stderr=subprocess.DEVNULL)
    measured = manifest.load(tmp_path / "out").measured["classify"]
    assert (measured["replies/stored"], measured["replies/asked"]) == (kept, 2 * ROWS - kept)
    assert not [pid for pid in children if alive(pid)]


def whole(text: str) -> str:
    """Without the bytes of half a character, which vLLM's server leaves out."""
    return text.rstrip("\ufffd").strip()


def stored(store: Path) -> int:
    if not store.exists():
        return 0
    with closing(sqlite3.connect(store)) as db, suppress(sqlite3.OperationalError):
        return int(db.execute("SELECT count(*) FROM replies").fetchone()[0])
    return 0


def alive(pid: int) -> bool:
    """Whether it runs; one that only waits to be collected does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False

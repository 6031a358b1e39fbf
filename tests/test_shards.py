"""Stages in shards: the same bytes whatever their number, and nothing left for the stage to ask."""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest
from rlhi.artifacts import Input, Output, user_rows
from rlhi.cli import main
from rlhi.config import StageConfig
from rlhi.engine import tally
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.manifest import Manifest
from rlhi.records import Pair, Turn
from tests.rows import pair
from tests.test_ingest import spoken, write

USERS = [f"user{i:02d}" for i in range(12)]
QUIET, DENIES = "user07", "user08"  # whom the script answers nothing, and no


@dataclass(frozen=True)
class Stage:
    """How a stage is called: its inputs by parameter, and where its engine is in its config."""

    name: str
    output: str
    inputs: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict)
    engine: str = "engine"
    of_nobody: int = 0  # requests for no user, which every shard needs

    def argv(self, place: Path, out: Path, script: Path) -> list[str]:
        places = [part for name, made_by in self.inputs.items() for part in (f"--{name}", str(place / made_by))]
        config = {self.engine: {"kind": "scripted", "script": str(script)}} | self.config
        return [self.name, *places, f"--{self.output}", str(out), "--config", json.dumps(config)]


TALKS = {"conversations": "conversations"}
ALL = {**TALKS, "turns": "turns", "personas": "personas"}
CLASSIFY = Stage("classify", "turns", TALKS, {"calibrate": True}, of_nobody=1)
PERSONA = Stage("persona", "personas", TALKS, {"history_tokens": 300})
FAST = {
    "classify": CLASSIFY,
    "persona": PERSONA,
    "time-safe persona": replace(PERSONA, config={"time_safe": True}),
    "reconstruct": Stage(
        "reconstruct", "reconstructed", {**TALKS, "turns": "turns"}, {"check_follow_up": True, "method": "generate"}
    ),
    "rewrite": Stage("rewrite", "rewrites", ALL, {"max_prompts": 15}),
    "sample": Stage("sample", "samples", ALL, {"max_prompts": 20, "n": 3}),
}


def rules(stage: str) -> list[dict[str, str]]:
    """Labels by marks that only follow-ups have; in other stages, something that only this user is told."""
    labels = [("N/A", ""), ("(shorter)", "[[Re-attempt with feedback]]"), ("(thanks)", "[[Positive feedback]]")]
    own = [(user, f"- {user} likes figs\n- and number {{n}}") for user in USERS]
    said = labels if stage == "classify" else [(QUIET, ""), (DENIES, "[[No]] number {n}"), *own]
    return [{"contains": mark, "reply": reply} for mark, reply in said]


def talks() -> list[dict[str, Any]]:
    """Some conversations of every user, each text of it the user's own."""
    return [
        spoken(
            f"{user}-{i}",
            f"Fruit {i} of {user}?",
            f"A fig, {user} {i}.",
            f"{user} {i} (shorter)",
            f"Fig {i}.",
            f"{user} {i} (thanks)" if i % 2 else f"{user} {i} again (shorter)",
            f"Yes, {user}.",
            user=user,
            day=i,
        )
        for number, user in enumerate(USERS)
        for i in range(2 + number % 3)
    ]


def asked(log: Path) -> Counter[str]:
    return Counter(log.read_text().splitlines() if log.exists() else [])


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the manifest; the report without what this run asked and what it found in the store."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != manifest.NAME)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    if report := found.get("report.html"):
        found["report.html"], costs = re.subn(rb'<section id="cost">.*?</section>', b"", report, flags=re.DOTALL)
        assert costs == 1
    return found


def replies(made: Manifest, name: str) -> int:
    return int(made.metrics.get(f"replies/{name}", 0))


def told(folder: Path) -> Manifest:
    """The manifest without what two equal runs differ in."""
    made = manifest.load(folder)
    metrics = {name: value for name, value in made.metrics.items() if not name.startswith(tally.PREFIXES)}
    return replace(made, created_at="", seconds=0.0, metrics=metrics, measured={})


class Rehearsal:
    """Calls of one stage in a folder of their own, and the log of what the script was asked.

    The script lies beside the folder, under the same name for every rehearsal of a test: it is part of the config.
    """

    def __init__(self, stage: Stage, inputs: Path, place: Path) -> None:
        self.stage, self.inputs, self.place = stage, inputs, place
        place.mkdir()
        self.log = place / "asked.txt"
        self.script = place.parent / "script.json"

    def write_script(self, delay: float = 0) -> None:
        self.script.write_text(json.dumps({"rules": rules(self.stage.name), "delay": delay, "log": str(self.log)}))

    def argv(self, out: str, *flags: str) -> list[str]:
        return [*self.stage.argv(self.inputs, self.place / out, self.script), *flags]

    def run(self, out: str, *flags: str) -> Path:
        self.write_script()
        with pytest.MonkeyPatch.context() as shell:
            shell.setenv("RLHI_REPLIES", str(self.place / "replies.sqlite"))
            assert main(self.argv(out, *flags)) == 0
        return self.place / out


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations, turns and personas."""
    place = tmp_path_factory.mktemp("inputs")
    config = json.dumps({"min_conversations": 1, "eval_share": 0.3, "eval_min_conversations": 3, "held_out": 1})
    source = write(place / "logs.jsonl", *talks())
    assert (
        main(["ingest", "--source", source, "--conversations", str(place / "conversations"), "--config", config]) == 0
    )
    for stage in (CLASSIFY, PERSONA):
        made = Rehearsal(stage, place, place / f"{stage.name}-made").run("out")
        made.rename(place / stage.output)
    return place


def check(rehearsal: Rehearsal, plain: Rehearsal, whole: Path, count: int) -> None:
    """Runs all shards, the last first, and then the stage: the bytes of ``whole`` and nothing new to ask."""
    needed = 0
    for number in range(count, 0, -1):
        made = manifest.load(rehearsal.run(f"shard-{number}", "--shard", f"{number}/{count}"))
        assert (made.record, made.shard, made.rows_in, made.kept) == ("Shard", f"{number}/{count}", 0, 0)
        needed += replies(made, "asked") + replies(made, "stored") - rehearsal.stage.of_nobody
    before = asked(rehearsal.log)
    joined = rehearsal.run("joined")
    assert asked(rehearsal.log) == before == asked(plain.log)
    assert replies(manifest.load(joined), "asked") == 0
    assert replies(manifest.load(joined), "stored") == needed + rehearsal.stage.of_nobody
    assert contents(joined) == contents(whole)
    assert told(joined) == told(whole)


@pytest.mark.parametrize("name", FAST)
def test_stage_after_its_shards_is_the_stage_without_them(name: str, inputs: Path, tmp_path: Path) -> None:
    plain = Rehearsal(FAST[name], inputs, tmp_path / "plain")
    whole = plain.run("out")
    made = manifest.load(whole)
    assert made.kept > 5
    assert made.dropped or name == "classify"
    for count in (1, 3, 7):
        rehearsal = Rehearsal(FAST[name], inputs, tmp_path / f"of{count}")
        check(rehearsal, plain, whole, count)


def trained(tiny_model: Path, place: Path) -> None:
    """A model folder as dpo makes it, with an adapter that changes nothing."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def make(model: Output[Pair], config: StageConfig) -> None:
        del config
        model.write([pair("p")], [], 1)
        lora = LoraConfig(r=2, target_modules=["q_proj"])
        get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), lora).save_pretrained(model.file("adapter"))

    execute(Call("dpo", make, {}, {}, "model", Output(place, Pair), StageConfig()))


@pytest.mark.slow
def test_analyze_after_its_shards_is_analyze_without_them(inputs: Path, tmp_path: Path) -> None:
    stage = Stage("analyze", "traits", ALL, {"calibrate": True, "max_users": 9, "resamples": 100}, of_nobody=4)
    plain = Rehearsal(stage, inputs, tmp_path / "plain")
    rehearsal = Rehearsal(stage, inputs, tmp_path / "shards")
    check(rehearsal, plain, plain.run("out"), 3)


@pytest.mark.slow
def test_evaluate_after_its_shards_is_evaluate_without_them(inputs: Path, tmp_path: Path, tiny_model: Path) -> None:
    """In five shards, some of which have no turn of their own."""
    trained(tiny_model, tmp_path / "model")
    model = {"id": str(tiny_model)}
    config = {
        "model": model,
        "reward": {"model": model},
        "sampling": {"temperature": 0, "max_tokens": 4},
        "opponents": ["log", "base"],
        "resamples": 100,
        "max_turns": 3,
        "calibrate": True,
    }
    places = {**TALKS, "personas": "personas", "model": str(tmp_path / "model")}
    stage = Stage("evaluate", "verdicts", places, config, engine="judge")
    plain = Rehearsal(stage, inputs, tmp_path / "plain")
    rehearsal = Rehearsal(stage, inputs, tmp_path / "shards")
    check(rehearsal, plain, plain.run("out"), 5)
    counts = [replies(manifest.load(rehearsal.place / f"shard-{i}"), "asked") for i in range(1, 6)]
    assert min(counts) == 0 < max(counts)


def test_shard_that_is_killed_is_run_again_alone(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Rehearsal(PERSONA, inputs, tmp_path / "plain")
    whole = plain.run("out")
    rehearsal = Rehearsal(PERSONA, inputs, tmp_path / "shards")
    rehearsal.run("shard-1", "--shard", "1/2")
    others = asked(rehearsal.log)
    rehearsal.write_script(delay=0.2)
    monkeypatch.setenv("RLHI_REPLIES", str(rehearsal.place / "replies.sqlite"))
    argv = [sys.executable, "-m", "rlhi.cli", *rehearsal.argv("shard-2", "--shard", "2/2")]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and asked(rehearsal.log) == others:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -9
    assert not (rehearsal.place / "shard-2").exists()
    rehearsal.run("shard-2", "--shard", "2/2")
    assert (asked(rehearsal.log) - asked(plain.log)).total() <= 1
    before = asked(rehearsal.log)
    assert contents(rehearsal.run("joined")) == contents(whole)
    assert asked(rehearsal.log) == before


def test_stage_asks_by_itself_for_what_a_shard_missed(inputs: Path, tmp_path: Path) -> None:
    plain = Rehearsal(CLASSIFY, inputs, tmp_path / "plain")
    whole = plain.run("out")
    rehearsal = Rehearsal(CLASSIFY, inputs, tmp_path / "shards")
    rehearsal.run("shard-2", "--shard", "2/2")
    assert contents(rehearsal.run("joined")) == contents(whole)
    assert asked(rehearsal.log) == asked(plain.log)


def test_output_of_a_shard_is_no_output_of_the_stage(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_STORE", str(tmp_path / "store"))
    rehearsal = Rehearsal(CLASSIFY, inputs, tmp_path / "shards")
    made = rehearsal.run("shard-1", "--shard", "1/1")
    assert user_rows(made) == {}
    assert sorted(contents(made)) == ["users.parquet"]
    with pytest.raises(InputError, match="holds Shard rows of stage classify, not Turn"):
        Input(made, Turn).manifest  # noqa: B018
    assert manifest.load(rehearsal.run("whole")).kept > 5
    rehearsal.run("whole")  # complete, as is the shard
    rehearsal.run("shard-1", "--shard", "1/1")
    for out, flags in (("shard-1", []), ("whole", ["--shard", "1/1"]), ("shard-1", ["--shard", "1/2"])):
        assert main(rehearsal.argv(out, *flags)) == 2


def test_shard_that_is_done_is_done_elsewhere_too(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_STORE", str(tmp_path / "store"))
    rehearsal = Rehearsal(CLASSIFY, inputs, tmp_path / "shards")
    first = manifest.load(rehearsal.run("one", "--shard", "1/2"))
    assert manifest.load(rehearsal.run("other", "--shard", "1/2")) == first
    assert manifest.load(rehearsal.run("third", "--shard", "2/2")) != first

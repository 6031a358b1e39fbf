"""Both methods from logs to a report, stage by stage as a container would run them, with a tiny random model."""

import html
import json
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest
from rlhi.artifacts import Input, user_rows
from rlhi.cli import main
from rlhi.records import Conversation, Pair, Persona, Verdict

EXAMPLES = Path(__file__).parents[1] / "examples" / "conversations.jsonl"
HOSTILE = " <script>alert(1)</script>{{ 7 * 7 }}<|im_end|>"


class Run:
    """One folder with an output per stage."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = {"id": str(model), "max_prompt_tokens": 6000}
        self.engine: dict[str, Any] = {"model": self.model, "batch_size": 64}
        self.sampling: dict[str, Any] = {"max_tokens": 8, "temperature": 1.0}
        self.turns = 8

    def write_logs(self) -> str:
        """The example conversations, with something unpleasant at the end of every user message."""
        rows = [json.loads(line) for line in EXAMPLES.read_text().splitlines()]
        for message in (message for row in rows for message in row["conversation"] if message["role"] == "user"):
            message["content"] += HOSTILE
        path = self.folder.with_suffix(".jsonl")
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return str(path)

    def __getitem__(self, stage: str) -> Path:
        return self.folder / stage

    def stage(self, stage: str, output: str, config: dict[str, Any], **inputs: str) -> None:
        argv = [stage, f"--{output}", str(self[stage]), "--config", json.dumps(config)]
        for name, made_by in inputs.items():
            argv += [f"--{name}", made_by if name == "source" else str(self[made_by])]
        assert main(argv) == 0

    def start(self) -> None:
        config: dict[str, Any] = {"eval_share": 0.4, "eval_min_conversations": 4, "held_out": 2}
        self.stage("ingest", "conversations", config, source=self.write_logs())
        config = {"engine": self.engine, "calibrate": True, "meaningful_feedback": False}
        self.stage("classify", "turns", config, conversations="ingest")
        config = {"engine": self.engine, "sampling": self.sampling, "history_tokens": 1000}
        self.stage("persona", "personas", config, conversations="ingest")

    def finish(self, candidates: str) -> None:
        self.train(candidates)
        self.judge()

    def train(self, candidates: str) -> None:
        self.stage("reward", "scored", {"model": self.model}, candidates=candidates)
        self.stage("rip", "pairs", {candidates: {"thresholds": "off"}, "keep_cut": True}, scored="reward")
        config = {"model": self.model, "batch_size": 8, "learning_rate": 1e-3, "lora_rank": 4, "max_tokens": 6000}
        self.stage("dpo", "model", config, pairs="rip")

    def judge(self) -> None:
        config = {
            "model": self.model,
            "sampling": self.sampling,
            "judge": self.engine,
            "reward": {"model": self.model},
            "axes": ["usereval"],
            "opponents": ["log", "base"],
            "batch_size": 64,
            "max_turns": self.turns,
            "resamples": 100,
        }
        self.stage("evaluate", "verdicts", config, conversations="ingest", personas="persona", model="dpo")


@pytest.fixture(scope="module")
def rewrites(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("rewrites"), tiny_model)
    run.start()
    config: dict[str, Any] = {"engine": run.engine, "sampling": run.sampling, "only_before_feedback": True}
    run.stage("reconstruct", "reconstructed", config, conversations="ingest", turns="classify")
    config = {"engine": run.engine, "sampling": run.sampling}
    run.stage("rewrite", "rewrites", config, conversations="reconstruct", turns="classify", personas="persona")
    run.finish("rewrite")
    return run


@pytest.fixture(scope="module")
def rewards(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("rewards"), tiny_model)
    run.start()
    config = {"engine": run.engine, "sampling": run.sampling, "n": 4, "max_prompts": 12, "keep_cut": True}
    run.stage("sample", "samples", config, conversations="ingest", turns="classify", personas="persona")
    run.finish("sample")
    return run


@pytest.fixture(params=["rewrites", "rewards"])
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.getfixturevalue(request.param)
    return found


def test_no_row_is_lost_from_the_logs_to_the_verdicts(run: Run) -> None:
    funnel = manifest.load(run["evaluate"]).funnel
    assert {row.stage for row in funnel} == {path.name for path in run.folder.iterdir()}
    for row in funnel:
        described = manifest.load(run[row.stage])
        assert (row.rows_in, row.kept, row.dropped) == (described.rows_in, described.kept, described.dropped)
        assert row.rows_in == row.kept + sum(row.dropped.values())
    by_stage = {row.stage: row for row in funnel}
    for before, after in [("reward", "rip"), ("rip", "dpo")]:
        assert by_stage[before].kept == by_stage[after].rows_in
    assert by_stage["dpo"].kept > 0


def test_held_out_conversations_feed_no_persona_and_no_pair(run: Run) -> None:
    rows = {row.id: row for row in Input(run["ingest"], Conversation).read()}
    held_out = {key for key, row in rows.items() if row.split == "held-out"}
    assert held_out
    assert {row.user_id for row in rows.values() if row.split == "held-out"} <= {
        row.user_id for row in rows.values() if row.split == "reference"
    }
    for persona in Input(run["persona"], Persona).read():
        assert not held_out & set(persona.conversations)
    for pair in Input(run["rip"], Pair).read():
        assert rows[pair.id.split("/")[0]].split == "train"
    for verdict in Input(run["evaluate"], Verdict).read():
        assert verdict.turn_id.split("/")[0] in held_out


def test_personas_come_from_users_own_conversations(run: Run) -> None:
    owner = {row.id: row.user_id for row in Input(run["ingest"], Conversation).read()}
    for persona in Input(run["persona"], Persona).read():
        assert {owner[key] for key in persona.conversations} == {persona.user_id}


def test_users_on_the_report_are_listed_with_it(run: Run) -> None:
    shown = {row.user_id for row in Input(run["persona"], Persona).read()}
    trained = {row.user_id for row in Input(run["dpo"], Pair).read()}
    assert shown | trained <= user_rows(run["evaluate"]).keys()


def test_report_shows_what_users_said_escaped(run: Run) -> None:
    page = (run["evaluate"] / "report.html").read_text()
    for pair in Input(run["dpo"], Pair).read():
        assert pair.context[-1].content.endswith(HOSTILE)
        assert pair.context[-1].content in html.unescape(page)
    assert HOSTILE not in page


def test_every_turn_is_judged_in_both_orders_against_both_opponents(run: Run) -> None:
    verdicts = Input(run["evaluate"], Verdict).read()
    described = manifest.load(run["evaluate"])
    assert len(verdicts) == described.kept * 2 * 2 * 2  # modes, opponents, orders
    assert {"win_rate/log/usereval/persona-guided", "win_rate/base/reward/context-only"} <= described.metrics.keys()


def test_rewrites_are_pairs_of_original_and_rewrite(rewrites: Run) -> None:
    rows = {row.id: row for row in Input(rewrites["reconstruct"], Conversation).read()}
    for pair in Input(rewrites["rip"], Pair).read():
        name, place = pair.id.split("/")
        assert pair.source == "rewrite"
        assert pair.rejected == rows[name].messages[int(place) - 1].content
        assert pair.follow_up == rows[name].messages[int(place)].content
        assert pair.context == rows[name].messages[: int(place) - 1]

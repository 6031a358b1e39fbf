"""Recipes in shards through KFP's local runner, each task a process. Some need a minute."""

import io
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console

from pipelines import graph, local, plan, recipes, summary, variants
from pipelines.recipes import USER_GUIDED_REWRITES
from rlhi.engine.sharded import Shard
from rlhi.ingest.identity import Hasher
from tests.chat_server import ChatServer
from tests.test_http_stages import label
from tests.test_ingest import spoken, write

EXAMPLES = Path(__file__).parents[1] / "examples" / "conversations.jsonl"
SALT = "grains"
USERS = [f"user{i}" for i in range(6)]
ASKING = ("classify", "persona", "reconstruct", "rewrite", "evaluate")


class Run:
    """Runs of one recipe in one folder, up to where it fails, with classify asking a server."""

    def __init__(self, place: Path, server: ChatServer) -> None:
        rows = [
            spoken(f"{user}-{i}", f"Fruit of {user}, {i}?", "A fig.", f"{user}, {i}: shorter.", user=user, day=i)
            for user in USERS
            for i in range(2)
        ]
        self.work, self.source = place / "work", write(place / "logs.jsonl", *rows)
        (place / "script.json").write_text('[{"contains": "", "reply": "- short"}]')
        settings = [
            "ingest.min_conversations=1",
            "ingest.eval_share=0",
            "classify.calibrate=false",
            "classify.engine.kind=openai",
            "classify.engine.model.id=judge",
            f"classify.engine.server.url={server.url}",
            "persona.engine.kind=scripted",
            f"persona.engine.script={place / 'script.json'}",
            "reconstruct.engine.kind=scripted",
            "reconstruct.engine.script=nowhere.json",
        ]
        recipe = variants.with_settings(replace(USER_GUIDED_REWRITES, analyze=None), settings)
        self.recipe = variants.with_shards(recipe, ["classify=3"])
        self.work.mkdir()

    def start(self) -> tuple[local.Progress, dict[str, str]]:
        """How it went, and what was told of each task; persona is left out, which KFP runs before or after classify."""
        told = io.StringIO()
        progress = local.Progress(Console(file=told, width=100), self.work, plan.count(self.recipe))
        place = local.Place(self.work, env={"RLHI_STORE": str(self.work / "store"), "RLHI_SALT": SALT})
        local.run(graph.build(self.recipe), {"source": self.source}, place, progress)
        progress.done = [one for one in progress.done if one.task.stage != "persona"]
        lines = [line.strip() for line in told.getvalue().splitlines()]
        return progress, {line.partition("] ")[2]: after for line, after in pairwise([*lines, ""]) if line[:1] == "["}


def said(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def users_of(shard: Shard) -> list[str]:
    """The users by their names in the source."""
    return [user for user in USERS if shard.has(Hasher(SALT).user(user))]


@pytest.mark.slow
def test_run_that_starts_again_asks_only_what_the_failed_shard_missed(tmp_path: Path) -> None:
    last = users_of(Shard(3, 3))
    broken = True

    def fault(number: int) -> web.Response | None:
        refused = broken and f"{last[0]}, 1: shorter" in said(server.bodies[number])
        return web.Response(status=400, text="not this one") if refused else None

    with ChatServer(label, fault) as server:
        run = Run(tmp_path, server)
        first, _ = run.start()
        before, broken = len(server.bodies), False
        again, told = run.start()
        sent = [said(body) for body in server.bodies]
    assert first.failed == "classify shard 3 of 3"
    assert [one.task.title for one in first.done] == ["ingest", "classify shard 1 of 3", "classify shard 2 of 3"]
    assert all(any(f" {user}," in text for user in last) for text in sent[before:])
    assert len(set(sent)) == 2 * len(USERS)
    titles = ["ingest", *(f"classify shard {i} of 3" for i in (1, 2, 3)), "classify"]
    assert [one.task.title for one in again.done] == titles
    assert [one.reused for one in again.done] == [True, True, True, False, False]
    assert again.failed == "reconstruct"  # its script is missing: so far, and no further
    assert again.manifests[-1].metrics["replies/asked"] == 0
    assert told["classify"].endswith("24 of 24 rows kept")
    for number in (1, 2, 3):
        asked, stored = map(int, re.findall(r"(\d+) (?:replies|from the store)", told[titles[number]]))
        assert asked + stored == 2 * len(users_of(Shard(number, 3)))
        assert stored == 0 or number == 3  # what was answered before the refusal


def everything_scripted(place: Path, model: Path) -> recipes.Recipe:
    """Scripts wherever an engine is configured; the tiny model trains, scores, and answers when it is evaluated."""
    script = place / "script.json"
    rules = [
        ("Classification:", "[[Re-attempt with feedback]]"),
        ("Revise your previous response", "a fig"),
        ("", "- a short answer {n}"),
    ]
    script.write_text(json.dumps([{"contains": mark, "reply": reply} for mark, reply in rules]))
    engines = [f"{stage}.{'judge' if stage == 'evaluate' else 'engine'}" for stage in ASKING]
    settings = [f"{engine}.{field}" for engine in engines for field in ("kind=scripted", f"script={script}")]
    settings += [
        f"{name}.max_prompt_tokens=6000" for name in ("evaluate.model", "evaluate.reward.model", "reward.model")
    ]
    settings += [
        "dpo.max_tokens=6000",
        "evaluate.max_turns=3",
        "evaluate.sampling.max_tokens=4",
        "rip.rewrite.thresholds=off",
        "classify.calibrate=false",
        "rewrite.max_prompts=8",
    ]
    recipe = variants.with_model(replace(USER_GUIDED_REWRITES, analyze=None), str(model))
    return variants.with_settings(recipe, settings)


@pytest.mark.slow
def test_recipe_in_shards_runs_to_its_end_and_its_stages_ask_nothing(tmp_path: Path, tiny_model: Path) -> None:
    recipe = variants.with_shards(everything_scripted(tmp_path, tiny_model), ["2"])
    told = io.StringIO()
    progress = local.Progress(Console(file=told, width=100), tmp_path, plan.count(recipe))
    place = local.Place(tmp_path, env={"RLHI_STORE": str(tmp_path / "store"), "RLHI_SALT": SALT})
    local.run(graph.build(recipe), {"source": str(EXAMPLES)}, place, progress)
    assert progress.failed is None
    assert len(progress.done) == plan.count(recipe) == len(recipe.stages) + 2 * len(ASKING)
    for stage in ASKING:
        *shards, whole = [one.described for one in progress.done if one.described and one.described.stage == stage]
        assert [each.shard for each in shards] == ["1/2", "2/2"]
        assert min(each.metrics["replies/asked"] for each in shards) > 0
        assert (whole.metrics["replies/asked"], whole.shard) == (0, None)
        assert whole.kept
    assert sorted(each.stage for each in progress.manifests) == sorted(recipe.stages)
    summary.tell(Console(file=told, width=100), progress.done, tmp_path, "sqlite:////work/mlflow.db")
    assert "report.html" in told.getvalue()
    reported = json.loads((tmp_path / "latest" / "evaluate" / "executor_output.json").read_text())["artifacts"]
    assert Path(reported["report"]["artifacts"][0]["uri"]).read_text().lstrip().startswith("<!DOCTYPE html>")

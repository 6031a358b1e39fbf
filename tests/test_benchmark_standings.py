"""AlpacaEval and Arena-Hard from files to figures: through the stage, over a real server, and what the figures say."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rlhi import manifest
from rlhi.analyze.estimates import Bootstrap
from rlhi.artifacts import Input
from rlhi.benchmark.contests import ORDERS, Judgement
from rlhi.benchmark.standings import Standing, as_metrics, standings, table
from rlhi.cli import main
from rlhi.paper import STANDARD
from rlhi.records import Grade, Order, from_table
from tests.chat_server import ChatServer
from tests.test_benchmark_pairwise import letter, write

ALPACA = [{"instruction": f"Say {n}.", "output": f"BAD {n} " * (1 + n % 3), "dataset": "koala"} for n in range(12)]
ARENA = [{"uid": f"u{n}", "prompt": f"Solve {n}.", "category": "arena-hard-v0.1"} for n in range(12)]
BASELINE = [{"uid": f"u{n}", "output": f"BAD {n}"} for n in range(12)]


def judgement(item: str, order: Order, won: float | None, **more: Any) -> Judgement:
    label = None if won is None else "label"
    return replace(Judgement("arena-hard", item, order, label, won, 1, "", None, "GOOD", "BAD"), **more)


def standing(rows: list[Judgement]) -> Standing:
    (found,) = standings(rows, "org/a judge", Bootstrap(100))
    return found


def test_null_is_in_no_rate_and_counted_by_its_cause() -> None:
    rows = [
        judgement("q", "model-first", 1.0),
        judgement("q", "opponent-first", None),
        judgement("r", "model-first", None, missing="unanswered"),
        judgement("r", "opponent-first", None, missing="prompt_too_long"),
        judgement("s", "model-first", 0.0, weight=3),
        judgement("s", "opponent-first", 1.0),
    ]
    found = standing(rows)
    assert found.rate.value == pytest.approx(2 / 5)
    assert (found.rate.items, found.judgements, found.unread) == (2, 6, 1)
    assert found.missing == {"unanswered": 1, "prompt_too_long": 1}
    assert as_metrics([found])["win_rate/arena-hard/org-a-judge/missing"] == 2


def test_alpaca_eval_in_both_orders_is_the_mean_of_each_item() -> None:
    rows = [
        judgement("q", "model-first", 0.8, suite="alpaca-eval"),
        judgement("q", "opponent-first", 0.6, suite="alpaca-eval"),
        judgement("r", "model-first", 0.1, suite="alpaca-eval"),
        judgement("r", "opponent-first", None, suite="alpaca-eval"),
    ]
    found = standing(rows)
    assert found.rate.value == pytest.approx((0.7 + 0.1) / 2)
    assert found.rate.items == 2


def test_judge_that_prefers_a_place_is_told() -> None:
    rows = [judgement(f"q{n}", order, float(order == "model-first")) for n in range(4) for order in ORDERS]
    rows += [judgement("tie", "model-first", 0.5), judgement("tie", "opponent-first", 0.0)]
    found = standing(rows)
    assert found.disagreement == 1.0  # a tie contradicts nothing
    assert found.first_position == 1.0
    assert standing([judgement("q", "model-first", 0.5)]).first_position is None


def test_nothing_readable_has_no_figure() -> None:
    found = standing([judgement("q", "model-first", None)])
    metrics = as_metrics([found])
    assert metrics == {
        f"win_rate/arena-hard/org-a-judge/{name}": value
        for name, value in (("items", 0), ("unread", 1), ("missing", 0))
    }
    assert "| arena-hard | org/a judge | 0 |" in table([found], "a model")


def test_papers_figures_stand_beside() -> None:
    shown = table([standing([judgement("q", "model-first", 1.0), judgement("r", "model-first", 1.0)])], "a model")
    (line,) = [line for line in shown.splitlines() if line.startswith("| arena-hard | ")]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[4:6] == ["100.0", "100.0 to 100.0"]
    assert cells[-6:-1] == ["21.3", "50.0", "64.4", "51.2", "64.3"]
    assert [name for name, _ in STANDARD] == [
        "Llama-3.1-8B-Instruct",
        "RL, rewrites from scratch",
        "RL, user-agnostic rewards",
        "RLHI, user-guided rewrites",
        "RLHI, user-based rewards",
    ]


def says(body: dict[str, Any], sample: int) -> str | dict[str, Any]:
    """The model, its opponent and the judge, in one server; the judge cannot decide on what holds a 7."""
    asked = body["messages"][-1]["content"]
    if body["model"] != "judge":
        return f"{'GOOD' if body['model'] == 'model' else 'BAD'}: {asked}"
    first = asked.index("GOOD") < asked.index("BAD")
    if "structured_outputs" in body:
        good, bad = ("m", "M") if first else ("M", "m")
        return letter(good, **{good: 0.75, bad: 0.25})
    if "Solve 7." in asked:
        return "I cannot say."
    return f"Mine first. [[{'A>>B' if first else 'B>>A'}]]"


def flags(server: ChatServer, **opponent: Any) -> list[str]:
    def engine(name: str) -> dict[str, Any]:
        return {"kind": "openai", "model": {"id": name}, "server": {"url": server.url}}

    pairwise = {"judge": engine("judge"), **({"opponent": engine("opponent")} if opponent.get("asked") else {})}
    config = {"engine": engine("model"), "pairwise": pairwise, "resamples": 100, "n": 50}
    return ["--config", json.dumps({**config, "suites": ["alpaca-eval", "arena-hard"]})]


def sources(folder: Path) -> list[str]:
    items = [write(folder / "alpaca.jsonl", *ALPACA), write(folder / "arena.jsonl", *ARENA)]
    return ["--items", ",".join(items), "--opponent-answers", write(folder / "baseline.jsonl", *BASELINE)]


def judgements(folder: Path) -> list[Judgement]:
    return from_table(Judgement, pq.read_table(folder / "judgements.parquet"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))

    def made(server: ChatServer, name: str, *more: str, **opponent: Any) -> Path:
        argv = ["benchmark", "--grades", str(tmp_path / name), *sources(tmp_path), *flags(server, **opponent), *more]
        assert main(argv) == 0
        return tmp_path / name

    return made


def test_published_files_become_figures_named_by_their_judge(run: Callable[..., Path]) -> None:
    with ChatServer(says) as server:
        out = run(server, "out")
        sent = len(server.bodies)
        assert sent == 12 + 12 + 12 + 24  # answers once, AlpacaEval in one order, Arena-Hard in two
        again = run(server, "again")
        assert len(server.bodies) == sent  # the second run is paid for by the first
    described = manifest.load(out)
    assert (described.rows_in, described.kept, described.dropped) == (24, 24, {})
    metrics = described.metrics
    assert metrics["win_rate/alpaca-eval/judge"] == pytest.approx(0.75)
    assert metrics["win_rate/arena-hard/judge"] == 1.0
    assert (metrics["win_rate/arena-hard/judge/items"], metrics["win_rate/arena-hard/judge/unread"]) == (11, 2)
    assert {
        "win_rate/alpaca-eval/judge/length_controlled",
        "win_rate/arena-hard/judge/style_controlled",
    } <= metrics.keys()
    assert not any(name.startswith("accuracy") for name in metrics)
    rows = Input(out, Grade).read()
    assert [row.score for row in rows if row.item_id == "arena-hard/u7"] == [None]
    assert {row.sample for row in rows} == {0}
    unread = [row for row in judgements(out) if row.won is None]
    assert [(row.item_id, row.text) for row in unread] == [("arena-hard/u7", "I cannot say.")] * 2
    assert judgements(again) == judgements(out)
    assert "| alpaca-eval | judge | 12 | 75.0 |" in (out / "pairwise.md").read_text()


def test_problems_are_answered_n_times_and_comparisons_once_in_one_run(tmp_path: Path) -> None:
    problem = {"question_id": 1, "question": "Pick.", "options": ["x", "y"], "answer": "B", "category": "law"}
    items = [write(tmp_path / "mmlu.jsonl", problem), write(tmp_path / "alpaca.jsonl", *ALPACA[:2])]
    with ChatServer(lambda body, k: "The answer is (B)." if "Pick." in str(body) else says(body, k)) as server:
        argv = ["benchmark", "--items", ",".join(items), "--grades", str(tmp_path / "out"), *flags(server)]
        assert main([*argv, "--suites", '["mmlu-pro", "alpaca-eval"]', "--n", "3"]) == 0
    rows = Input(tmp_path / "out", Grade).read()
    assert [(row.suite, row.sample) for row in rows] == [
        *(("mmlu-pro", n) for n in range(3)),
        *[("alpaca-eval", 0)] * 2,
    ]
    metrics = manifest.load(tmp_path / "out").metrics
    assert metrics["accuracy/mmlu-pro"] == 1.0
    assert metrics["win_rate/alpaca-eval/judge"] == pytest.approx(0.75)
    assert {"accuracy.md", "pairwise.md"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_other_model_answers_for_the_opponent(run: Callable[..., Path]) -> None:
    with ChatServer(says) as server:
        out = run(server, "out", "--opponent-answers", "", asked=True)
    assert {row.gold for row in judgements(out) if row.item_id == "arena-hard/u3"} == {"BAD: Solve 3."}
    assert {row.gold for row in judgements(out) if row.item_id == "alpaca-eval/3"} == {"BAD: Say 3."}


def test_shards_ask_for_all_that_the_stage_needs(run: Callable[..., Path]) -> None:
    with ChatServer(says) as server:
        for number in (2, 1):
            run(server, f"shard-{number}", "--shard", f"{number}/2")
        sent = len(server.bodies)
        out = run(server, "out")
        assert sent == len(server.bodies) == 60
    assert len(judgements(out)) == 36


def test_failed_judge_answers_change_no_denominator_silently(run: Callable[..., Path]) -> None:
    def breaks(body: dict[str, Any], sample: int) -> str | dict[str, Any]:
        asked = body["messages"][-1]["content"]
        if body["model"] == "judge" and "Say 5." in asked:
            return {"message": {"content": ""}, "finish_reason": "content_filter"}
        return says(body, sample)

    with ChatServer(breaks) as server:
        out = run(server, "out")
    metrics = manifest.load(out).metrics
    assert metrics["win_rate/alpaca-eval/judge"] == pytest.approx(0.75)
    assert metrics["win_rate/alpaca-eval/judge/items"] == 11
    assert (metrics["win_rate/alpaca-eval/judge/missing"], metrics["win_rate/alpaca-eval/judge/unread"]) == (1, 0)
    (lost,) = [row for row in judgements(out) if row.missing is not None]
    assert (lost.item_id, lost.missing, lost.won) == ("alpaca-eval/5", "filtered", None)

"""What models were asked: the figures of a stage, the line in its log, and the points of its curves."""

import time
from collections import Counter

import pytest

from rlhi.config import SamplingConfig
from rlhi.engine import Request, choose, generate, tally
from rlhi.engine.scripted import ScriptedEngine
from tests.rows import messages

REQUESTS = [Request(f"r{i}", messages(f"Question {i}?")) for i in range(3)]
BUSY: tally.Counts = Counter(
    {
        "given": 30,
        "asked": 20,
        "stored": 10,
        "seconds": 2,
        "prompt_tokens": 400,
        "cached_tokens": 100,
        "tokens": 1000,
        "sent": 25,
        "retried/429": 4,
        "retried/timeout": 1,
        "unanswered/content_filter": 2,
        "cost": 1.5,
    }
)


def test_figures_of_a_stage_are_amounts_and_what_a_second_took() -> None:
    assert tally.metrics(BUSY) == {
        "replies/asked": 20,
        "replies/stored": 10,
        "replies/per_s": 15,
        "tokens/prompt": 400,
        "tokens/prefix_cached": 100,
        "tokens/generated": 1000,
        "tokens/prompt_per_s": 200,
        "tokens/generated_per_s": 500,
        "requests/sent": 25,
        "requests/retried/429": 4,
        "requests/retried/timeout": 1,
        "requests/unanswered/content_filter": 2,
        "cost/usd": 1.5,
    }
    assert all(name.startswith(tally.PREFIXES) for name in tally.metrics(BUSY))


def test_line_of_a_stage_says_all_of_it() -> None:
    assert tally.told(BUSY) == (
        "20 replies asked for, 10 from the store (15/s); 400 prompt tokens, 25% of them prefix-cached; "
        "1,000 tokens generated (500/s); 5 tries again (429 4, timeout 1); 2 without an answer (content_filter 2); "
        "$1.50"
    )
    assert tally.short(BUSY) == (
        "10 from the store, 500 tok/s, 25% of prompts cached, $1.50, 5 tries again (429 4, timeout 1)"
    )


def test_stage_without_a_model_has_nothing_to_say() -> None:
    counted = tally.since()
    assert (tally.metrics(counted()), tally.told(counted()), tally.short(counted())) == ({}, "", "")


def test_without_a_store_every_reply_was_asked_for() -> None:
    counted = tally.since()
    engine = ScriptedEngine(lambda *_: "fig")
    generate(engine, REQUESTS, SamplingConfig(), 2, 0)
    choose(engine, REQUESTS, ["fig", "nut"])
    found = tally.metrics(counted())
    assert (found["replies/asked"], found["replies/stored"]) == (9, 0)
    assert found["replies/per_s"] > 0


def test_clock_runs_while_a_model_is_waited_for_and_once_where_calls_are_nested() -> None:
    counted, began = tally.since(), time.monotonic()
    with tally.timed(), tally.timed():
        time.sleep(0.05)
        assert counted()["seconds"] >= 0.05
    after = counted()["seconds"]
    assert 0.05 <= after <= time.monotonic() - began
    time.sleep(0.01)
    assert counted()["seconds"] == after


def test_points_of_a_curve_tell_what_happened_since_the_one_before() -> None:
    before = Counter({"given": 20, "stored": 10, "prompt_tokens": 100, "tokens": 400})
    found = tally.points(BUSY, before, 10)
    assert found == pytest.approx(
        {
            "replies": 30,
            "replies_stored": 10,
            "replies_per_s": 1,
            "tokens_prompt_per_s": 30,
            "tokens_generated_per_s": 60,
            "tokens_prefix_cached": 0.25,
            "retried": 5,
            "cost_usd": 1.5,
        }
    )
    assert tally.points(BUSY, BUSY, 10)["replies_per_s"] == 0

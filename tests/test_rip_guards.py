import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhi.artifacts import Input, Output, user_rows
from rlhi.config import EngineConfig, digest
from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.records import Candidates, Pair
from rlhi.rip import contamination
from rlhi.rip.config import RipConfig, Rules
from rlhi.rip.contamination import matches, read
from rlhi.rip.follow_ups import check, refused
from rlhi.rip.guards import bursts, over_caps
from rlhi.rip.stage import form_and_filter, run
from tests.rows import answer, candidates, messages, pair, reasons

LONG = " ".join(f"word{i}" for i in range(60))
OFF = RipConfig(rewrite=Rules(thresholds="off"), sample=Rules(thresholds="off"), near_duplicates=None)
ITEM = "A train leaves the station at noon and travels at sixty miles per hour towards the east coast."


def said(id: str, *texts: str, user: str = "ann") -> Pair:  # noqa: A002
    return replace(pair(id), user_id=user, context=messages(*texts))


def row(id: str, *texts: str, user: str = "ann", follow_up: str | None = None, best: float = 1.0) -> Candidates:  # noqa: A002
    """A prompt of two samples, or of original and rewrite where there is a follow-up."""
    answers = (answer("old", 0.0, "original", None), answer("new", best, "rewrite"))
    if follow_up is None:
        answers = (answer("x", 0.0), answer("y", best))
    return replace(candidates(id, *answers), user_id=user, context=messages(*texts), follow_up=follow_up)


def test_prompt_that_the_user_nearly_sent_before_is_a_burst() -> None:
    pairs = [said("a/0", LONG), said("b/0", f"{LONG} indeed"), said("c/0", "Another one."), said("d/0", LONG)]
    assert bursts(pairs, 0.8, 0) == {"b/0", "d/0"}
    assert bursts(pairs, 1.0, 0) == {"d/0"}


def test_same_prompt_of_another_user_is_no_burst() -> None:
    assert bursts([said("a/0", LONG), said("b/0", LONG, user="ben")], 0.8, 0) == set()


def test_same_words_after_another_text_and_another_question_about_the_same_text_are_no_bursts() -> None:
    pairs = [
        said("a/2", LONG, "Ok.", "Go on."),
        said("b/2", "Hello.", "Ok.", "Go on."),
        said("c/2", LONG, "Ok.", "Why?"),
    ]
    assert bursts(pairs, 0.8, 0) == set()


def test_prompts_of_one_conversation_build_on_one_another_and_are_no_bursts() -> None:
    assert bursts([said("a/0", LONG), said("a/2", LONG, "Ok.", LONG)], 0.8, 0) == set()


def test_caps_take_by_seed_and_id_first_per_conversation_then_per_user() -> None:
    pairs = [said(f"{name}/{turn}", "Hi.") for name in ("a", "b") for turn in (0, 2, 4)]
    pairs += [said("e/0", "Hi.", user="ben")]
    config = RipConfig(max_per_conversation=2, max_per_user=3)
    out = over_caps(pairs, config)
    assert sorted(out.values()) == ["conversation_pair_cap", "conversation_pair_cap", "user_pair_cap"]
    assert over_caps(pairs[::-1], config) == out
    first = sorted((each.id for each in pairs[:3]), key=lambda key: digest(f"cap 0 {key}"))
    assert out[first[-1]] == "conversation_pair_cap"
    assert over_caps(pairs, RipConfig()) == {}


def test_caps_choose_among_pairs_that_passed_the_rules() -> None:
    rows = [candidates(f"a/{i}", answer("x" * i, 0.0), answer("y", 1.0)) for i in range(1, 9)]
    config = RipConfig(scale="here", near_duplicates=None, max_per_user=1)
    short = replace(config.sample.absolute, min_rejected_length=8)
    found = form_and_filter(rows, replace(config, sample=replace(config.sample, absolute=short)))
    assert [each.id for each in found.kept] == ["a/8"]


def test_burst_and_contaminated_pairs_move_no_quantile(tmp_path: Path) -> None:
    rows = [row("a/0", LONG), row("b/0", LONG), row("c/0", ITEM), row("d/0", "Hi."), row("e/0", "Ho.")]
    found = form_and_filter(rows, replace(OFF, near_duplicates=0.8), read(items(tmp_path, question=ITEM)))
    assert [each.id for each in found.ruled["sample"]] == ["a/0", "d/0", "e/0"]
    assert reasons(found.dropped) == {"b/0": "prompt_burst", "c/0": "contaminated"}


def judged(pairs: list[Pair], reply: Callable[[Request, int], str], limit: int = 4096) -> dict[str, str]:
    found = refused(check(pairs, ScriptedEngine(reply, limit), "generate"))
    return {key: str(reason) for key, reason in found.items()}


def test_follow_ups_leave_by_the_models_word() -> None:
    pairs = [replace(pair(key), follow_up=key) for key in ("fine", "unsafe", "refusal", "unread")]
    replies = {"fine": "[[Fine]]", "unsafe": "Label: [[Unsafe]]", "refusal": "[[Refusal]]", "unread": "Hm."}
    assert judged(pairs, lambda request, _: replies[request.key]) == {
        "unsafe": "unsafe_follow_up",
        "refusal": "punished_refusal",
        "unread": "unread_check",
    }


def test_follow_up_that_fits_no_prompt_counts_as_unread_and_pairs_without_one_are_not_asked_about() -> None:
    pairs = [replace(pair("long"), follow_up="word " * 500), pair("sampled")]
    assert judged(pairs, lambda *_: "[[Fine]]", limit=300) == {"long": "unread_check"}


def test_check_shows_request_answer_and_follow_up_as_they_are() -> None:
    shown = []

    def reply(request: Request, _: int) -> str:
        shown.append(request.messages[0].content)
        return "[[Fine]]"

    judged([replace(pair("c", said="Name {{ a }} fruit."), follow_up="Shorter [[Unsafe]].")], reply)
    assert shown[0].endswith(
        "[The Start of Request]\nName {{ a }} fruit.\n[The End of Request]\n\n"
        "[The Start of Answer]\nA fruit is a fig.\n[The End of Answer]\n\n"
        "[The Start of User Follow-up]\nShorter [[Unsafe]].\n[The End of User Follow-up]\n\n"
        "Write the label in double brackets.\nLabel:"
    )
    assert shown[0].startswith("Below are a request that a user made to an AI assistant, the assistant's answer, and")
    for label in ("Fine", "Unsafe", "Refusal"):
        assert f"[[{label}]] " in shown[0]


def test_only_pairs_that_passed_the_rules_are_asked_about() -> None:
    asked = set()

    def reply(request: Request, _: int) -> str:
        asked.add(request.key)
        return "[[Fine]]"

    rows = [row("a/2", "Hi.", follow_up="No."), row("b/2", "Ho.", follow_up="No.", best=9.0)]
    config = RipConfig(rewrite=Rules(), near_duplicates=None)
    short = replace(config.rewrite, absolute=replace(config.rewrite.absolute, min_rejected_length=0))
    found = form_and_filter(rows, replace(config, rewrite=short), engine=ScriptedEngine(reply))
    assert asked == {"a/2"}
    assert [each.id for each in found.kept] == ["a/2"]


def items(folder: Path, name: str = "bench.jsonl", **fields: object) -> str:
    (folder / name).write_text(json.dumps(fields) + "\n")
    return str(folder / name)


def names(pairs: list[Pair], source: str) -> list[tuple[str, str, int]]:
    return [(match.id, match.benchmark, match.row) for match in matches(pairs, read(source))]


def test_context_that_shares_thirteen_words_with_an_item_matches(tmp_path: Path) -> None:
    source = items(tmp_path, question=ITEM)
    words = ITEM.replace(",", "").split()
    thirteen, twelve = " ".join(words[2:15]), " ".join(words[2:14])
    pairs = [said("a/0", f"Please: {thirteen.upper()}!!! Thanks"), said("b/0", f"Please: {twelve} Thanks")]
    pairs += [said("c/2", "Hi.", thirteen, "Go on.")]
    assert names(pairs, source) == [("a/0", "bench", 1), ("c/2", "bench", 1)]


def test_short_item_matches_a_whole_message_only(tmp_path: Path) -> None:
    source = items(tmp_path, prompt="What is the capital of France?")
    pairs = [said("a/0", "what is the capital of France"), said("b/0", "What is the capital of France? And of Spain?")]
    assert names(pairs, source) == [("a/0", "bench", 1)]


def test_every_benchmark_that_matches_is_told_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps({"problem": "Other."}) + "\n" + json.dumps({"problem": ITEM}) + "\n")
    with gzip.open(tmp_path / "two.jsonl.gz", "wt") as file:
        file.write(json.dumps({"turns": [{"content": ITEM}]}) + "\n")
    pq.write_table(pa.table({"id": [1], "instruction": [f"Say: {ITEM}"]}), tmp_path / "three.parquet")
    found = names(
        [said("a/0", ITEM)], f"{tmp_path / 'one.jsonl'},{tmp_path / 'two.jsonl.gz'},{tmp_path / 'three.parquet'}"
    )
    assert found == [("a/0", "one", 2), ("a/0", "two", 1), ("a/0", "three", 1)]
    folder = {name for _, name, _ in names([said("a/0", ITEM)], str(tmp_path))}
    assert folder == {"one", "two", "three"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"question": "Why?"}\n{"answer": "7"}\n', r"bad\.jsonl: row 2 has no text in problem, .*; it has answer"),
        ('{"question": " ?"}\n', r"bad\.jsonl: row 1 has no text in .*; it has question"),
        ('{"question": "Why?"}\nnot json\n', r"bad\.jsonl: row 2 has no text in .*; it is no object"),
        ("\n", r"bad\.jsonl: has no rows"),
        ("version https://git-lfs.github.com/spec/v1\n", r"bad\.jsonl: is a Git LFS pointer"),
    ],
)
def test_bad_benchmark_is_refused_with_file_and_row(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(InputError, match=told):
        read(str(tmp_path / "bad.jsonl"))


@pytest.fixture
def scored(tmp_path: Path) -> Input[Candidates]:
    rows = [row("a/2", ITEM, follow_up="No."), row("b/2", "Name a fruit.", follow_up="Bad.", user="ben")]
    rows += [row("d/2", "Name a nut.", follow_up="Good.", user="dee")]
    return stored(tmp_path, rows)


def stored(folder: Path, rows: list[Candidates]) -> Input[Candidates]:
    def write(candidates: Output[Candidates], config: object) -> None:
        candidates.write(rows, [], len(rows))

    execute(Call("reward", write, {}, {}, "candidates", Output(folder / "scored", Candidates), OFF))
    return Input(folder / "scored", Candidates)


def test_what_was_contaminated_or_could_not_be_checked_is_told_and_counted(
    scored: Input[Candidates], tmp_path: Path
) -> None:
    script = [{"contains": "Bad.", "reply": "[[No idea]]"}, {"contains": "", "reply": "[[Fine]]"}]
    (tmp_path / "script.json").write_text(json.dumps(script))
    engine = EngineConfig(kind="scripted", script=str(tmp_path / "script.json"))
    config = replace(OFF, sample=Rules(), check_follow_ups=True, engine=engine, method="generate")
    uris = {"benchmarks": items(tmp_path, question=ITEM)}
    out = tmp_path / "pairs"
    described = execute(Call("rip", run, {"scored": scored}, uris, "pairs", Output(out, Pair), config))
    assert [each.id for each in Input(out, Pair).read()] == ["d/2"]
    assert described.dropped == {"contaminated": 1, "unread_check": 1}
    assert described.metrics["contaminated/bench"] == 1
    assert described.notes["contamination"].endswith("by benchmark: bench 1.")
    assert "1 could not be judged" in described.notes["follow_ups_checked"]
    assert json.loads((out / "contaminated.jsonl").read_text()) == {"id": "a/2", "benchmark": "bench", "row": 1}
    assert json.loads((out / "unread.jsonl").read_text()) == {"id": "b/2", "reply": "[[No idea]]"}
    assert user_rows(out) == {"ann": 0, "ben": 0, "dee": 1}


@pytest.mark.parametrize("guard", [{"max_per_user": 1}, {"check_follow_ups": True}])
def test_advice_knows_what_the_guards_take(guard: dict[str, Any], tmp_path: Path) -> None:
    """Looser thresholds are no way out where it is not the rules that leave too few."""

    def write(candidates: Output[Candidates], config: object) -> None:
        candidates.write([row("a/2", "Hi.", follow_up="Bad."), row("b/2", "Name a nut.", follow_up="Good.")], [], 2)

    execute(Call("reward", write, {}, {}, "candidates", Output(tmp_path / "scored", Candidates), OFF))
    (tmp_path / "script.json").write_text(
        '[{"contains": "Bad.", "reply": "[[Unsafe]]"}, {"contains": "", "reply": "[[Fine]]"}]'
    )
    engine = EngineConfig(kind="scripted", script=str(tmp_path / "script.json"))
    config = replace(OFF, sample=Rules(), engine=engine, method="generate", min_pairs=2, **guard)
    with Output(tmp_path / "pairs", Pair) as output, pytest.raises(InputError, match="no thresholds leave 2 pairs"):
        run(Input(tmp_path / "scored", Candidates), output, config)


def test_check_of_follow_ups_where_there_are_none_is_refused(tmp_path: Path) -> None:
    def write(candidates: Output[Candidates], config: object) -> None:
        candidates.write([row("a/0", "Hi.")], [], 1)

    execute(Call("reward", write, {}, {}, "candidates", Output(tmp_path / "scored", Candidates), OFF))
    config = replace(OFF, rewrite=Rules(), check_follow_ups=True, engine=EngineConfig(kind="scripted", script="none"))
    with Output(tmp_path / "pairs", Pair) as output, pytest.raises(InputError, match="has a follow-up; leave it out"):
        run(Input(tmp_path / "scored", Candidates), output, config)


def test_no_benchmarks_cost_nothing() -> None:
    assert contamination.read("") == []
    assert matches([said("a/0", ITEM)], []) == []


def of_users(**counts: int) -> list[Pair]:
    return [said(f"{user}{i}/0", f"Hi {i}.", user=user) for user, count in counts.items() for i in range(count)]


def test_users_with_the_most_pairs_are_taken_and_by_seed_where_they_have_as_many() -> None:
    pairs = of_users(ann=3, ben=1, cat=2, dan=2)
    out = over_caps(pairs, RipConfig(max_users=1))
    assert set(out.values()) == {"pair_user_cap"}
    assert {each.user_id for each in pairs if each.id not in out} == {"ann"}
    chosen = set()
    for seed in range(20):
        left = over_caps(pairs, RipConfig(max_users=2, seed=seed))
        chosen.add(tuple(sorted({each.user_id for each in pairs if each.id not in left})))
        assert over_caps(pairs[::-1], RipConfig(max_users=2, seed=seed)) == left
    assert chosen == {("ann", "cat"), ("ann", "dan")}


def test_pairs_in_all_are_capped_last_by_seed() -> None:
    pairs = of_users(ann=4, ben=3, cat=1)
    few = over_caps(pairs, RipConfig(max_users=2, max_pairs=3))
    assert sorted(few.values()) == ["pair_cap"] * 4 + ["pair_user_cap"]
    left = {each.id for each in pairs} - few.keys()
    other = {each.id for each in pairs} - over_caps(pairs, RipConfig(max_users=2, max_pairs=3, seed=1)).keys()
    assert (len(left), len(other)) == (3, 3)
    assert left != other


def test_cap_under_the_floor_is_refused() -> None:
    with pytest.raises(InputError, match=r"rip\.max_pairs=3 is under rip\.min_pairs=4"):
        RipConfig(max_pairs=3, min_pairs=4).check()
    RipConfig(max_pairs=4, min_pairs=4).check()


def test_too_few_pairs_of_few_users_name_the_cap(tmp_path: Path) -> None:
    rows = [row(f"{user}{i}/0", f"Hi {i}.", user=user) for user in ("ann", "ben") for i in range(2)]
    given, config = stored(tmp_path, rows), replace(OFF, rewrite=Rules(), max_users=1, max_pairs=4, min_pairs=4)
    with pytest.raises(InputError, match=r"2 pairs survive, rip\.min_pairs=4; loosen rip\.max_users") as refused_:
        run(given, Output(tmp_path / "out", Pair), config)
    assert "pair_user_cap 2" in str(refused_.value)

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from rlhi.artifacts import Input, Output
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.records import Candidates, Dropped, Pair
from rlhi.rip.config import Quantiles, RipConfig, Rules, Thresholds
from rlhi.rip.pairs import form
from rlhi.rip.rules import Limits, check, refuse
from rlhi.rip.stage import Filtered, form_and_filter, run
from tests.rows import answer, candidates, pair, reasons

ABSOLUTE = RipConfig(near_duplicates=None)
OFF = RipConfig(sample=Rules(thresholds="off"), near_duplicates=None)


def quantiles(length: float, reward: float, gap: float) -> Rules:
    own = Quantiles(min_rejected_length=length, min_rejected_reward=reward, max_gap=gap)
    return Rules(thresholds="quantile", quantile=own)


def rewrite_of(original: float | None, rewrite: float | None, text: str = "Fig.", id: str = "c") -> Candidates:  # noqa: A002
    return candidates(id, answer("A fruit is a fig.", original, "original", None), answer(text, rewrite, "rewrite"))


def best_and_worst(id: str, length: int, rejected: float, chosen: float) -> Candidates:  # noqa: A002
    return candidates(id, answer("x" * length, rejected), answer("y", chosen))


def made(row: Candidates) -> Pair:
    found = form(row)
    assert isinstance(found, Pair)
    return found


def ids(found: Filtered) -> list[str]:
    return [each.id for each in found.kept]


def test_rewrite_is_chosen_over_its_original_whose_reward_is_not_higher() -> None:
    for original, rewrite in [(0.0, 1.0), (0.5, 0.5)]:
        found = made(rewrite_of(original, rewrite))
        assert (found.chosen, found.rejected, found.source) == ("Fig.", "A fruit is a fig.", "rewrite")
        assert (found.chosen_reward, found.rejected_reward) == (rewrite, original)


def test_rewrite_below_its_original_forms_no_pair() -> None:
    assert form(rewrite_of(0.5, 0.4)) == "not_better_than_original"


def test_rewrite_that_equals_its_original_forms_no_pair() -> None:
    assert form(rewrite_of(0.0, 1.0, " A fruit  is a fig.\n")) == "equal_answers"


def test_rewrite_that_ended_by_length_forms_no_pair_unless_asked_for() -> None:
    original = answer("A fruit is a fig.", 0.0, "original", None)
    row = candidates("c", original, answer("A fruit", 1.0, "rewrite", "length"))
    assert form(row) == "cut_by_length"
    assert isinstance(form(row, keep_cut=True), Pair)


def test_best_sample_is_chosen_over_the_worst() -> None:
    found = made(candidates("c", answer("b", 0.2), answer("w", -3.0), answer("t", 0.9), answer("x", None)))
    assert (found.chosen, found.rejected, found.source) == ("t", "w", "sample")


def test_samples_that_ended_by_length_are_neither_best_nor_worst() -> None:
    cut = (answer("t", 9.0, finish="length"), answer("w", -9.0, finish="length"))
    found = made(candidates("c", *cut, answer("a", 0.2), answer("b", 0.1)))
    assert (found.chosen, found.rejected) == ("a", "b")
    assert form(candidates("c", *cut, answer("a", 0.2))) == "cut_by_length"
    assert form(candidates("c", *cut, answer("a", 0.2)), keep_cut=True) != "cut_by_length"


def test_sample_that_repeats_another_counts_once() -> None:
    """Scored twice, with rewards that differ, the same text would be both best and worst."""
    assert form(candidates("c", answer("a", 0.5), answer("a ", 0.7))) == "equal_answers"
    found = made(candidates("c", answer("a b", 0.5), answer("a\n b", 0.9), answer("c", 0.6)))
    assert (found.chosen, found.rejected) == ("c", "a b")


def test_samples_that_tie_form_no_pair() -> None:
    assert form(candidates("c", answer("a", 0.5), answer("b", 0.5))) == "tie"


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_fewer_than_two_scored_answers_form_no_pair(missing: float | None) -> None:
    assert form(rewrite_of(0.5, missing)) == "unscored"
    assert form(rewrite_of(missing, 0.5)) == "unscored"
    assert form(candidates("c", answer("a", 0.5), answer("b", missing))) == "unscored"
    assert form(candidates("c", answer("a", 0.5))) == "too_few_answers"
    assert form(candidates("c", answer("a", 0.5, "rewrite"), answer("b", 0.4, "rewrite"))) == "unscored"


def test_pair_keeps_what_it_was_made_for() -> None:
    row = replace(rewrite_of(0.0, 1.0), follow_up="Shorter.")
    found = made(row)
    assert (found.id, found.user_id, found.context, found.persona, found.follow_up) == (
        row.id,
        row.user_id,
        row.context,
        row.persona,
        "Shorter.",
    )


@pytest.mark.parametrize(
    ("length", "rejected", "chosen", "reason"),
    [
        (1877, -1.0, 0.0, "rejected_too_short"),
        (1878, -1.0, 0.0, None),
        (1878, -1.01, -0.01, "rejected_reward_too_low"),
        (1878, 0.0, 1.0, None),
        (1878, 0.0, 1.01, "gap_too_large"),
        (1877, -9.0, 9.0, "rejected_too_short"),
    ],
)
def test_papers_thresholds_keep_what_lies_on_them(
    length: int, rejected: float, chosen: float, reason: str | None
) -> None:
    found = form_and_filter([best_and_worst("c", length, rejected, chosen)], ABSOLUTE)
    assert [each.reason for each in found.dropped] == ([reason] if reason else [])
    assert len(found.kept) == (reason is None)


def test_length_is_counted_in_characters_of_the_rejected_answer() -> None:
    row = pair("c", chosen="é" * 9, rejected="é" * 5)
    assert refuse(row, Limits(5, -1, 1)) is None
    assert refuse(row, Limits(6, -1, 1)) == "rejected_too_short"


def test_quantiles_are_those_of_the_pairs_that_could_be_formed() -> None:
    rows = [best_and_worst(f"c{i}", i, float(i), 2.0 * i) for i in range(1, 11)]  # length, reward and gap are i
    rows.append(candidates("tie", answer("x" * 99, 0.0), answer("y", 0.0)))
    found = form_and_filter(rows, replace(OFF, sample=quantiles(0.25, 0.5, 0.75)))
    assert ids(found) == ["c6", "c7"]  # limits 3.25, 5.5, 7.75
    assert reasons(found.dropped) == {
        "tie": "tie",
        "c1": "rejected_too_short",
        "c2": "rejected_too_short",
        "c3": "rejected_too_short",
        "c4": "rejected_reward_too_low",
        "c5": "rejected_reward_too_low",
        "c8": "gap_too_large",
        "c9": "gap_too_large",
        "c10": "gap_too_large",
    }


def test_rewrites_and_samples_have_rules_and_quantiles_of_their_own() -> None:
    rows = [best_and_worst(f"s{i}", 100, float(i), 2.0 * i) for i in range(1, 5)]
    rows += [rewrite_of(0.0, float(i), id=f"r{i}") for i in range(4)]
    found = form_and_filter(rows, replace(OFF, rewrite=quantiles(0, 0, 1), sample=quantiles(0, 0, 0.5)))
    assert ids(found) == ["s1", "s2", "r0", "r1", "r2", "r3"]
    found = form_and_filter(rows, replace(OFF, rewrite=quantiles(0, 0, 0)))
    assert ids(found) == ["s1", "s2", "s3", "s4", "r0"]


def test_without_rules_every_pair_stays() -> None:
    assert len(form_and_filter([best_and_worst("c", 1, -50.0, 50.0)], OFF).kept) == 1


def test_no_candidates_give_no_pairs() -> None:
    for config in (ABSOLUTE, OFF, replace(OFF, sample=quantiles(1, 0, 1))):
        found = form_and_filter([], config)
        assert (found.kept, found.dropped) == ([], [])


def test_absolute_thresholds_are_refused_on_another_scale_unless_it_is_named() -> None:
    for own, other in [("nats per token", "nats per token"), ("unknown", "unknown")]:
        with pytest.raises(InputError, match=rf"rip\.sample\.thresholds=absolute: .*'Athene-RM-8B', these .*'{other}'"):
            check({"sample"}, own, ABSOLUTE)
        check({"sample"}, own, replace(ABSOLUTE, scale=own))
        check({"sample"}, own, replace(ABSOLUTE, sample=quantiles(0, 0, 1)))
        check({"sample"}, own, OFF)
    check({"rewrite", "sample"}, "Athene-RM-8B", ABSOLUTE)


@pytest.mark.parametrize("source", ["rewrite", "sample"])
def test_rules_for_a_source_that_is_not_there_are_refused(source: Literal["rewrite", "sample"]) -> None:
    config = RipConfig(sample=quantiles(0, 0, 1)) if source == "sample" else RipConfig(rewrite=quantiles(0, 0, 1))
    other: Literal["rewrite", "sample"] = "rewrite" if source == "sample" else "sample"
    with pytest.raises(
        InputError, match=rf"rip\.{source} is set, but none of the answers is a {source}; set rip\.{other}"
    ):
        check({other}, "Athene-RM-8B", config)
    check({source, other}, "Athene-RM-8B", config)
    check((), "Athene-RM-8B", config)


@pytest.fixture
def scored(tmp_path: Path) -> Input[Candidates]:
    """Four rows of which three make pairs, after a stage that dropped nine; rewards on a scale of their own."""

    def write(candidates: Output[Candidates], config: object) -> None:
        rows = [best_and_worst(f"c{i}", 10, float(i), 1.0 + 2 * i) for i in range(3)] + [best_and_worst("t", 1, 0, 0)]
        candidates.write(rows, [Dropped(f"d{i}", "other_label") for i in range(9)], 13)
        candidates.note("reward_scale", "stars")

    execute(Call("sample", write, {}, {}, "candidates", Output(tmp_path / "scored", Candidates), OFF))
    return Input(tmp_path / "scored", Candidates)


def filtered(scored: Input[Candidates], path: Path, config: RipConfig, **uris: str) -> list[Pair]:
    execute(Call("rip", run, {"scored": scored}, uris, "pairs", Output(path, Pair), config))
    return Input(path, Pair).read()


def test_output_holds_the_pairs_and_pictures(scored: Input[Candidates], tmp_path: Path) -> None:
    assert [each.id for each in filtered(scored, tmp_path / "pairs", OFF)] == ["c0", "c1", "c2"]
    for name in ("margins.png", "calibration-sample.png"):
        assert (tmp_path / "pairs" / name).read_bytes().startswith(b"\x89PNG")
    assert Input(tmp_path / "pairs", Pair).manifest.metrics == {"margin/median": 2.0}


def test_limits_that_quantiles_come_to_are_said(scored: Input[Candidates], tmp_path: Path) -> None:
    config = replace(OFF, sample=quantiles(0, 0.5, 1))
    assert [each.id for each in filtered(scored, tmp_path / "pairs", config)] == ["c1", "c2"]
    described = Input(tmp_path / "pairs", Pair).manifest
    assert described.metrics["limit/sample/min_reward"] == 1.0
    assert (
        "at least 10 characters and a reward of at least 1, and the chosen one has at most 3 more"
        in (described.notes["rules_sample"])
    )


def test_absolute_thresholds_stop_the_run_before_it_filters(scored: Input[Candidates], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"these are on 'stars'; set rip\.sample\.thresholds=quantile, .*'stars'"):
        filtered(scored, tmp_path / "pairs", RipConfig())


def test_too_few_pairs_stop_the_run_with_the_funnel_and_thresholds_to_paste(
    scored: Input[Candidates], tmp_path: Path
) -> None:
    rules = Rules(absolute=Thresholds(min_rejected_length=11))
    with pytest.raises(InputError) as caught:
        filtered(scored, tmp_path / "pairs", replace(OFF, sample=rules, scale="stars", min_pairs=2))
    first, *rest = str(caught.value).splitlines()
    assert first == (
        "rip: 0 pairs survive, rip.min_pairs=2; "
        "loosen rip.sample.absolute.min_rejected_length (dropped as rejected_too_short)"
    )
    assert [line.split() for line in rest[:2]] == [
        ["sample", "13", "in", "4", "kept", "other_label", "9"],
        ["rip", "4", "in", "0", "kept", "rejected_too_short", "3,", "tie", "1"],
    ]
    pasted = dict(line.strip().removeprefix("--set ").split("=") for line in rest if "--set" in line)
    assert pasted.keys() == {
        "rip.sample.thresholds",
        *(f"rip.sample.quantile.{name}" for name in ("min_rejected_length", "min_rejected_reward", "max_gap")),
    }
    assert rest[-1].endswith(f"python -m rlhi.rip.calibrate --scored {tmp_path / 'scored'} --min-pairs 2 --out FOLDER")
    assert not (tmp_path / "pairs").exists()
    length, reward, gap = (float(value) for name, value in pasted.items() if ".quantile." in name)
    advised = filtered(scored, tmp_path / "pairs", replace(OFF, sample=quantiles(length, reward, gap), min_pairs=2))
    assert len(advised) == 3
    assert any("these thresholds leave 3 pairs" in line for line in rest)


def test_advice_goes_upstream_where_rip_itself_dropped_nothing(scored: Input[Candidates], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        filtered(scored, tmp_path / "pairs", replace(OFF, min_pairs=9))
    assert "3 pairs survive, rip.min_pairs=9; loosen classify.initial or sample.labels" in str(caught.value)
    assert "no thresholds leave 9 pairs" in str(caught.value)

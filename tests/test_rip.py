from dataclasses import replace
from pathlib import Path

import pytest

from rlhi.artifacts import Input, Output
from rlhi.config import override
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.records import Candidates, Dropped, Pair
from rlhi.rip.stage import RipConfig, form, form_and_filter, refuse, run
from tests.rows import answer, candidates, pair, reasons

OFF = RipConfig(thresholds="off")


def rewrite_of(original: float | None, rewrite: float | None, text: str = "Fig.") -> Candidates:
    return candidates("c", answer("A fruit is a fig.", original, "original", None), answer(text, rewrite, "rewrite"))


def best_and_worst(id: str, length: int, rejected: float, chosen: float) -> Candidates:  # noqa: A002
    return candidates(id, answer("x" * length, rejected), answer("y", chosen))


def made(row: Candidates) -> Pair:
    found = form(row)
    assert isinstance(found, Pair)
    return found


def test_rewrite_is_chosen_over_its_original_whose_reward_is_not_higher() -> None:
    for original, rewrite in [(0.0, 1.0), (0.5, 0.5)]:
        found = made(rewrite_of(original, rewrite))
        assert (found.chosen, found.rejected, found.source) == ("Fig.", "A fruit is a fig.", "rewrite")
        assert (found.chosen_reward, found.rejected_reward) == (rewrite, original)


def test_rewrite_below_its_original_forms_no_pair() -> None:
    assert form(rewrite_of(0.5, 0.4)) == "not_better_than_original"


def test_rewrite_that_equals_its_original_forms_no_pair() -> None:
    assert form(rewrite_of(0.0, 1.0, " A fruit is a fig.\n")) == "equal_answers"


def test_best_sample_is_chosen_over_the_worst() -> None:
    found = made(candidates("c", answer("b", 0.2), answer("w", -3.0), answer("t", 0.9), answer("x", None)))
    assert (found.chosen, found.rejected, found.source) == ("t", "w", "sample")


def test_samples_that_tie_or_are_equal_form_no_pair() -> None:
    assert form(candidates("c", answer("a", 0.5), answer("b", 0.5))) == "tie"
    assert form(candidates("c", answer("a", 0.5), answer("a ", 0.7))) == "equal_answers"


def test_fewer_than_two_scored_answers_form_no_pair() -> None:
    assert form(rewrite_of(0.5, None)) == "unscored"
    assert form(rewrite_of(None, 0.5)) == "unscored"
    assert form(candidates("c", answer("a", 0.5), answer("b", None))) == "unscored"


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
    kept, dropped = form_and_filter([best_and_worst("c", length, rejected, chosen)], RipConfig())
    assert [each.reason for each in dropped] == ([reason] if reason else [])
    assert len(kept) == (reason is None)


def test_length_is_counted_in_characters_of_the_rejected_answer() -> None:
    row = pair("c", chosen="é" * 9, rejected="é" * 5)
    assert refuse(row, 5, -1, 1) is None
    assert refuse(row, 6, -1, 1) == "rejected_too_short"


def test_quantiles_are_those_of_the_pairs_that_could_be_formed() -> None:
    rows = [best_and_worst(f"c{i}", i, float(i), 2.0 * i) for i in range(1, 11)]  # length, reward and gap are i
    rows.append(candidates("tie", answer("x" * 99, 0.0), answer("y", 0.0)))
    config = RipConfig(thresholds="quantile", min_rejected_length=0.25, min_rejected_reward=0.5, max_gap=0.75)
    kept, dropped = form_and_filter(rows, config)
    assert [each.id for each in kept] == ["c6", "c7"]  # limits 3.25, 5.5, 7.75
    assert reasons(dropped) == {
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


def test_without_thresholds_every_pair_stays() -> None:
    assert len(form_and_filter([best_and_worst("c", 1, -50.0, 50.0)], OFF)[0]) == 1


def test_no_candidates_give_no_pairs() -> None:
    for config in (RipConfig(), OFF, RipConfig(thresholds="quantile", min_rejected_length=1, min_rejected_reward=0)):
        assert form_and_filter([], config) == ([], [])


@pytest.mark.parametrize("setting", ["min_rejected_length", "min_rejected_reward", "max_gap"])
def test_quantile_outside_zero_to_one_is_refused(setting: str, tmp_path: Path) -> None:
    low = RipConfig(thresholds="quantile", min_rejected_length=0, min_rejected_reward=0)
    with (
        Output(tmp_path / "pairs", Pair) as output,
        pytest.raises(InputError, match=rf"rip\.{setting}=1\.5: .* give a number from 0 to 1"),
    ):
        run(Input(tmp_path, Candidates), output, override(low, setting, "1.5", "rip"))


@pytest.fixture
def scored(tmp_path: Path) -> Input[Candidates]:
    """Four rows, one of which ties, after a stage that dropped nine."""

    def write(candidates: Output[Candidates], config: object) -> None:
        rows = [best_and_worst(f"c{i}", 10, float(i), 1.0 + 2 * i) for i in range(3)] + [rewrite_of(1.0, 0.0)]
        candidates.write(rows, [Dropped(f"d{i}", "other_label") for i in range(9)], 13)

    execute(Call("sample", write, {}, {}, "candidates", Output(tmp_path / "scored", Candidates), OFF))
    return Input(tmp_path / "scored", Candidates)


def filtered(scored: Input[Candidates], path: Path, config: RipConfig) -> list[Pair]:
    execute(Call("rip", run, {"scored": scored}, {}, "pairs", Output(path, Pair), config))
    return Input(path, Pair).read()


def test_output_holds_the_pairs_and_a_picture_of_their_margins(scored: Input[Candidates], tmp_path: Path) -> None:
    assert [each.id for each in filtered(scored, tmp_path / "pairs", OFF)] == ["c0", "c1", "c2"]
    assert (tmp_path / "pairs" / "margins.png").read_bytes().startswith(b"\x89PNG")
    assert Input(tmp_path / "pairs", Pair).manifest.metrics == {"margin/median": 2.0}


def test_too_few_pairs_stop_the_run_with_the_funnel_and_a_way_out(scored: Input[Candidates], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        filtered(scored, tmp_path / "pairs", replace(OFF, thresholds="absolute", min_rejected_length=11))
    first, *funnel = str(caught.value).splitlines()
    assert first == (
        "rip: 0 pairs survive, rip.min_pairs=1; loosen rip.min_rejected_length (dropped as rejected_too_short)"
    )
    assert [line.split() for line in funnel] == [
        ["sample", "13", "in", "4", "kept", "other_label", "9"],
        ["rip", "4", "in", "0", "kept", "rejected_too_short", "3,", "not_better_than_original", "1"],
    ]
    assert not (tmp_path / "pairs").exists()


def test_advice_goes_upstream_where_rip_itself_dropped_nothing(scored: Input[Candidates], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"3 pairs survive, rip\.min_pairs=9; .*classify\.initial or sample\.labels"):
        filtered(scored, tmp_path / "pairs", replace(OFF, min_pairs=9))

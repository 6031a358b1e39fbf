import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rlhi.artifacts import Output
from rlhi.execute import Call, execute
from rlhi.records import Candidates, Pair
from rlhi.rip.calibrate import main
from rlhi.rip.calibration import measure, propose, quantiles_at, settings, thrown_out
from rlhi.rip.config import Quantiles, RipConfig
from rlhi.rip.figures import survival
from rlhi.rip.page import Calibrated, render
from rlhi.rip.rules import Limits, at_quantiles
from tests.pages import Page
from tests.rows import answer, candidates, messages, pair
from tests.test_analyze_page import HOSTILE


def lying(place: int, length: int, reward: float, gap: float) -> Pair:
    return replace(pair(f"c{place}/0", rejected="x" * length), chosen_reward=reward + gap, rejected_reward=reward)


LADDER = [lying(i, i, float(i), 11.0 - i) for i in range(1, 11)]  # what one rule likes, the others like too


def test_counts_are_what_each_rule_leaves_alone_and_together() -> None:
    found = measure("sample", LADDER, Limits(3, 6.0, 2.0))
    assert found.shown is not None
    assert found.shown.alone == {"length": 8, "reward": 5, "gap": 2}
    assert found.shown.jointly == 2
    assert (found.paper.alone, found.paper.jointly) == ({"length": 0, "reward": 10, "gap": 1}, 0)
    assert found.levels[0.0].jointly == 10
    assert found.levels[0.5].alone == {"length": 5, "reward": 5, "gap": 5}
    assert found.levels[0.5].jointly == 5


def test_rips_quantiles_are_proposed_where_they_leave_enough() -> None:
    found = propose({"sample": LADDER}, 4)
    assert found is not None
    assert (found.strictness, found.quantiles, found.kept) == (1, Quantiles(), 4)


def test_otherwise_the_strictest_quantiles_that_leave_enough() -> None:
    found = propose({"sample": LADDER}, 8)
    assert found is not None
    assert found.kept == 8
    assert 0 < found.strictness < 1
    stricter = at_quantiles(LADDER, quantiles_at(found.strictness + 0.05))
    assert measure("sample", LADDER, stricter).shown.jointly < 8  # type: ignore[union-attr]


def test_nothing_is_proposed_where_there_are_too_few_pairs_without_any_rule() -> None:
    assert propose({"sample": LADDER}, 11) is None
    assert propose({"sample": LADDER}, 5, lambda pairs: min(len(pairs), 4)) is None


def test_floor_counts_pairs_of_all_sources_and_settings_name_each() -> None:
    rewrites = [replace(each, source="rewrite") for each in LADDER]
    found = propose({"rewrite": rewrites, "sample": LADDER}, 8)
    assert found is not None
    assert found.kept == 8
    assert settings(found, ["rewrite", "sample"])[::4] == [
        "rip.rewrite.thresholds=quantile",
        "rip.sample.thresholds=quantile",
    ]


def test_each_rule_throws_out_by_itself_next_to_the_limit_first() -> None:
    limits = Limits(3, 6.0, 8.5)
    assert [each.id for each in thrown_out(LADDER, limits, "length")] == ["c2/0", "c1/0"]
    assert [each.id for each in thrown_out(LADDER, limits, "reward")] == ["c5/0", "c4/0", "c3/0", "c2/0", "c1/0"]
    assert [each.id for each in thrown_out(LADDER, limits, "gap")] == ["c2/0", "c1/0"]


def test_page_escapes_what_users_wrote_and_says_what_to_mind() -> None:
    pairs = [replace(each, context=messages(HOSTILE), follow_up=HOSTILE, chosen=HOSTILE) for each in LADDER]
    found = Calibrated(
        [measure("sample", pairs, Limits(3, 6.0, 8.5))], propose({"sample": pairs}, 8), 8, "stars", HOSTILE
    )
    page = render(found, {"sample": b""})
    assert HOSTILE not in page
    text = Page(page).text
    assert "alert(1)" in text
    assert "10 pairs of 1 user" in text
    assert "scale of Athene-RM-8B; these rewards are on the scale “stars”" in text
    assert "Only 10 pairs with a sample" in text
    assert "--set rip.sample.quantile.max_gap=" in text
    assert "Too short: 2 pairs" in text
    assert "<script" not in page


@pytest.mark.parametrize(("count", "limits"), [(1, None), (2, Limits(99, 99.0, 0.0))])
def test_picture_is_drawn_of_few_pairs_and_of_limits_beyond_them(count: int, limits: Limits | None) -> None:
    pairs = LADDER[:count]
    picture = survival(measure("sample", pairs, limits), 2, propose({"sample": pairs}, 2))
    assert picture.startswith(b"\x89PNG")


def test_same_pairs_give_the_same_picture() -> None:
    found, proposal = measure("sample", LADDER, Limits(3, 6.0, 2.0)), propose({"sample": LADDER}, 2)
    assert survival(found, 2, proposal) == survival(found, 2, proposal)


def scored(folder: Path, *rows: Candidates) -> Path:
    def write(candidates: Output[Candidates], config: object) -> None:
        candidates.write(rows, [], len(rows))
        candidates.note("reward_scale", "stars")

    execute(Call("reward", write, {}, {}, "candidates", Output(folder / "scored", Candidates), RipConfig()))
    return folder / "scored"


def test_command_writes_page_and_picture_and_shows_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        candidates(f"c{i}/0", answer("x" * i, float(i)), answer("y", 11.0, finish="length" if i == 1 else "stop"))
        for i in range(1, 11)
    ]
    rows = [replace(row, context=messages(f"Question number {i}?")) for i, row in enumerate(rows)]
    folder = scored(tmp_path, *rows)
    assert main(["--scored", str(folder), "--out", str(tmp_path / "look"), "--min-pairs", "4"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("10 rows; no pair: cut_by_length 1\n\nsample: 9 pairs\n")
    assert "--set rip.sample.quantile.min_rejected_reward=0.6" in shown
    assert "paper's" in shown
    assert "9 pairs of 1 user" in Page((tmp_path / "look" / "calibration.html").read_text()).text
    assert (tmp_path / "look" / "calibration-sample.png").read_bytes().startswith(b"\x89PNG")
    assert main(["--scored", str(folder), "--out", str(tmp_path / "look"), "--keep-cut"]) == 0
    assert capsys.readouterr().out.startswith("10 rows; no pair: none\n\nsample: 10 pairs\n")


def test_rows_that_make_no_pair_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = scored(tmp_path, candidates("c/0", answer("a", 1.0), answer("b", 1.0)))
    assert main(["--scored", str(folder), "--out", str(tmp_path / "look")]) == 2
    assert capsys.readouterr().err == f"error: {folder}: its 1 rows make no pair (tie 1)\n"
    assert main(["--scored", str(tmp_path / "none"), "--out", str(tmp_path / "look")]) == 2


def test_help_teaches() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlhi.rip.calibrate", "--help"], capture_output=True, text=True, check=True
    )
    assert "example:\n  python -m rlhi.rip.calibrate --scored" in done.stdout

"""What a log shows of long work: lines, now and then, with the time left."""

import re
import time

import pytest

from rlhi import progress
from rlhi.progress import bar, seconds_left, silent, track, whole


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.02)


def work(steps: int) -> None:
    with bar("asking", steps, "reply", lambda: "all from the store") as shown:
        for _ in range(steps):
            time.sleep(0.01)
            shown.update()


def test_log_has_whole_lines_with_speed_time_left_and_what_else_there_is(capfd: pytest.CaptureFixture[str]) -> None:
    work(10)
    written = capfd.readouterr().err
    assert "\r" not in written
    lines = written.splitlines()
    assert 2 <= len(lines) <= 7
    pattern = r"asking: \d+ of 10, +[\d.]+reply/s, \d\d:\d\d left, all from the store"
    assert all(re.fullmatch(pattern, line) for line in lines)
    assert lines[-1].startswith("asking: 10 of 10")


def test_short_work_leaves_no_line(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 15.0)
    work(3)
    assert capfd.readouterr().err == ""


def test_passes_of_one_whole_are_one_bar(capfd: pytest.CaptureFixture[str]) -> None:
    with whole("classifying", 20, "turn"):
        work(10)
        work(10)
    lines = capfd.readouterr().err.splitlines()
    assert all(line.startswith("classifying: ") and line.endswith("all from the store") for line in lines)
    assert lines[-1].startswith("classifying: 20 of 20")


def test_nothing_is_shown_where_it_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with silent():
        work(10)
        assert seconds_left() is None
    assert capfd.readouterr().err == ""


def test_time_left_is_that_of_the_outermost_work() -> None:
    assert seconds_left() is None
    started = time.monotonic()
    for number in track(range(10), "judging"):
        work(2)
        if number == 5:
            assert seconds_left() == pytest.approx(time.monotonic() - started, rel=0.7)
    with bar("judging", 9) as outer, bar("asking", 9) as inner:
        inner.update()
        assert seconds_left() is None
        outer.update()
        assert seconds_left() is not None
    assert seconds_left() is None
    with bar("reading", None) as shown:
        shown.update()
        assert seconds_left() is None

from dataclasses import replace

from rlhi.conversations import in_time
from tests.rows import talk


def test_history_is_oldest_first_and_what_has_no_time_comes_before_it_by_id() -> None:
    rows = [talk("b", day=2), talk("c", day=1), talk("a", day=2), *(replace(talk(x), timestamp=None) for x in "zy")]
    assert [row.id for row in sorted(rows, key=in_time)] == ["y", "z", "c", "a", "b"]

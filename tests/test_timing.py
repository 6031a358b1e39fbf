from collections.abc import Sequence
from dataclasses import replace

import pytest

from rlhi.persona.timing import Made, Material, Written, per_user, time_safe
from rlhi.personas import Personas
from rlhi.records import Conversation, Persona
from tests.rows import persona, reasons, talk


class Maker:
    """Writes what it read into the persona, and remembers what it was asked; nothing comes of a newest ``MUTE``."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, str | None]]] = []

    def __call__(self, materials: Sequence[Material]) -> list[Made]:
        self.asked.append([(_said(each), each.so_far.text if each.so_far else None) for each in materials])
        return [self._made(each) for each in materials]

    def _made(self, material: Material) -> Made:
        if not material.said:
            return Made("", (), "no_message_fits")
        if material.said[0].text == "MUTE":
            return Made("", (), "empty_persona")
        before = f"{material.so_far.text}+" if material.so_far else ""
        read = tuple(dict.fromkeys(one.conversation_id for one in material.said))
        return Made(f"{before}{_said(material)}", read, None)


def _said(material: Material) -> str:
    return " ".join(one.text for one in material.said)


def day(name: str, number: int, user: str = "ann") -> Conversation:
    return talk(name, name.upper(), "Yes?", user=user, day=number)


ROWS = [day("a", 0), day("b", 1), day("c", 2)]


def renewed(rows: list[Conversation], previous: list[Persona]) -> tuple[Written, Maker]:
    maker = Maker()
    return per_user(rows, previous, maker), maker


def test_persona_without_news_stays_and_nobody_is_asked() -> None:
    before = persona("ann", "- old", "b", "a")
    written, maker = renewed(ROWS[:2], [before])
    assert written.kept == [before]
    assert written.counts == {"unchanged": 1}
    assert maker.asked == [[]]


def test_persona_is_updated_from_what_is_new_alone() -> None:
    written, maker = renewed(ROWS, [persona("ann", "old", "b", "a")])
    assert maker.asked == [[("C", "old")]]
    assert written.kept == [persona("ann", "old+C", "c", "b", "a")]
    assert written.counts == {"updated": 1}


def test_new_user_is_inferred_and_one_who_left_is_forgotten() -> None:
    written, _ = renewed(
        [*ROWS, day("d", 0, user="ben")], [persona("ann", "old", "a", "b", "c"), persona("eve", "x", "e")]
    )
    assert [(each.user_id, each.text) for each in written.kept] == [("ann", "old"), ("ben", "D")]


@pytest.mark.parametrize("gone", ["erased", "held out"])
def test_persona_that_read_what_is_gone_is_inferred_anew(gone: str) -> None:
    rows = ROWS[1:] if gone == "erased" else [replace(ROWS[0], split="held-out"), *ROWS[1:]]
    written, maker = renewed(rows, [persona("ann", "A secret", "b", "a")])
    assert maker.asked == [[("C B", None)]]
    assert written.kept == [persona("ann", "C B", "c", "b")]


def test_old_conversation_that_did_not_fit_then_is_no_news_now() -> None:
    written, maker = renewed(ROWS, [persona("ann", "old", "c", "b")])
    assert maker.asked == [[]]
    assert written.kept[0].text == "old"


def test_conversation_without_a_time_is_news_until_it_is_read() -> None:
    rows = [replace(ROWS[0], timestamp=None), ROWS[1]]
    assert renewed(rows, [persona("ann", "old", "b")])[0].kept == [persona("ann", "old+A", "a", "b")]
    assert renewed(rows, [persona("ann", "old", "a", "b")])[0].counts == {"unchanged": 1}


def test_update_that_gives_nothing_leaves_the_persona() -> None:
    before = persona("ann", "old", "a")
    written, _ = renewed([ROWS[0], talk("m", "MUTE", day=1)], [before])
    assert (written.kept, written.dropped, written.counts) == ([before], [], {"unchanged": 1})


def texts(rows: list[Conversation], written: Written) -> dict[str, str | None]:
    known = Personas(written.kept)
    return {row.id: known.of(row) for row in rows}


def test_time_safe_persona_reads_neither_its_conversation_nor_a_later_one() -> None:
    rows = [ROWS[2], ROWS[0], ROWS[1]]  # whatever the order of the rows
    written = time_safe(rows, Maker())
    assert written.kept == [
        persona("ann", "A+B", "b", "a", only_for="c"),
        persona("ann", "A", "a", only_for="b"),
    ]
    assert reasons(written.dropped) == {"a": "no_earlier_conversation"}
    assert texts(rows, written) == {"c": "A+B", "a": None, "b": "A"}


def test_all_users_are_updated_in_step() -> None:
    maker = Maker()
    time_safe([*ROWS, day("d", 5, "ben"), day("e", 6, "ben"), day("f", 7, "ben")], maker)
    assert maker.asked == [[], [("A", None), ("D", None)], [("B", "A"), ("E", "D")]]  # evaluation users come first


def test_conversations_of_one_time_do_not_know_of_each_other() -> None:
    rows = [day("a", 0), day("b", 1), day("c", 1), day("d", 2)]
    assert texts(rows, time_safe(rows, Maker())) == {"a": None, "b": "A", "c": "A", "d": "A+C B"}


def test_conversation_without_a_time_gets_no_time_safe_persona_and_feeds_none() -> None:
    rows = [replace(ROWS[0], timestamp=None), *ROWS[1:]]
    written = time_safe(rows, Maker())
    assert texts(rows, written) == {"a": None, "b": None, "c": "B"}
    assert reasons(written.dropped) == {"a": "no_timestamp", "b": "no_earlier_conversation"}


def test_conversation_that_gave_nothing_is_read_again_with_the_next() -> None:
    rows = [talk("m", "MUTE"), day("a", 1), day("b", 2), day("c", 3)]
    maker = Maker()
    written = time_safe(rows, maker)
    assert maker.asked[1:] == [[("MUTE", None)], [("A MUTE", None)], [("B", "A MUTE")]]
    assert reasons(written.dropped) == {"m": "no_earlier_conversation", "a": "empty_persona"}
    assert texts(rows, written) == {"m": None, "a": None, "b": "A MUTE", "c": "A MUTE+B"}


def test_evaluation_users_have_one_persona_from_their_reference_history() -> None:
    rows = [
        talk("r", "R", split="reference", user="eve"),
        talk("s", "S", split="reference", user="eve", day=1),
        talk("h", "H", split="held-out", user="eve", day=2),
        *ROWS,
    ]
    written = time_safe(rows, Maker())
    assert written.kept[0] == persona("eve", "S R", "s", "r")
    assert texts(rows[:3], written) == {"r": "S R", "s": "S R", "h": "S R"}
    assert len(written.kept) + len(written.dropped) == 1 + 3

from dataclasses import replace

from rlhi.personas import Personas, unusable
from tests.rows import persona, personas, talk, turn


def test_conversation_has_its_own_persona_or_else_its_users() -> None:
    known = Personas(
        [persona("ann", "general"), persona("ann", "then", only_for="c"), persona("ben", "x", only_for="d")]
    )
    assert known.of(talk("c")) == "then"
    assert known.of(talk("e")) == "general"
    assert known.of(talk("d", user="ben")) == "x"
    assert known.of(talk("c", user="ben")) is None  # what was made for another conversation is no use


def test_turn_is_usable_for_training_with_its_label_and_a_persona() -> None:
    row = talk("c", "Hi.", "Yes?")
    asked, known = turn(row, 0, "new"), personas("ann")
    assert unusable(asked, row, ("new",), known) is None
    assert unusable(asked, None, ("new",), known) == "conversation_dropped"
    assert unusable(asked, talk("c", "Hi.", split="held-out"), ("new",), known) == "held_out"
    assert unusable(asked, row, ("initial",), known) == "other_label"
    assert unusable(replace(asked, meaningful_feedback=True), row, ("new",), known) is None
    assert unusable(replace(asked, meaningful_feedback=False), row, ("new",), known) == "no_meaningful_feedback"
    assert unusable(asked, row, ("new",), personas("ben")) == "no_persona"

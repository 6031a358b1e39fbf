from dataclasses import replace

from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.persona.stage import PersonaConfig, infer, points
from rlhi.records import Conversation, Dropped, Persona
from tests.rows import talk

CONFIG = PersonaConfig()


def read(rows: list[Conversation], config: PersonaConfig = CONFIG, limit: int = 4096) -> dict[str, str]:
    """What the model was shown of each user."""
    shown: dict[str, str] = {}

    def reply(request: Request, _: int) -> str:
        shown[request.key] = request.messages[-1].content
        return "- short"

    infer(rows, ScriptedEngine(reply, limit), config)
    return shown


def test_persona_names_user_points_and_conversations() -> None:
    rows = [talk("b1", "Hi.", "Yes?", user="ben"), talk("a1", "Hi.", "Yes?"), talk("a2", "Hi.", "Yes?", day=1)]
    kept, dropped = infer(rows, ScriptedEngine(lambda request, _: f"- {request.key} likes it short"), CONFIG)
    assert kept == [
        Persona("ben", "- ben likes it short", ("b1",)),
        Persona("ann", "- ann likes it short", ("a2", "a1")),
    ]
    assert dropped == []


def test_only_the_users_own_words_are_read_newest_conversation_first() -> None:
    rows = [
        talk("old", "First.", "SECRET", "Second."),
        talk("new", "system:SECRET", "Third.", "SECRET", day=1),
        talk("other", "Nothing.", "SECRET", user="ben"),
    ]
    shown = read(rows)
    assert "Third.\n\nFirst.\n\nSecond.\n[The End" in shown["ann"]
    assert "SECRET" not in "".join(shown.values())
    assert "Nothing." not in shown["ann"]


def test_held_out_conversation_is_never_read() -> None:
    rows = [talk("r", "Reference.", "Yes?", split="reference"), talk("h", "Held.", "Yes?", split="held-out", day=1)]
    kept, _ = infer(rows, ScriptedEngine(lambda request, _: request.messages[-1].content), CONFIG)
    assert kept[0].conversations == ("r",)
    assert "Held." not in read(rows)["ann"]


def test_user_with_held_out_conversations_only_is_dropped() -> None:
    kept, dropped = infer([talk("h", "Hi.", "Yes?", split="held-out")], ScriptedEngine(lambda *_: "- short"), CONFIG)
    assert (kept, dropped) == ([], [Dropped("ann", "no_message_fits")])


def test_oldest_conversations_are_left_out_where_not_all_fit() -> None:
    rows = [talk(f"c{i}", f"number{i} " * 20, "Yes?", day=i) for i in range(9)]
    two = len(read(rows[7:])["ann"].split())
    for config, limit in [(replace(CONFIG, history_tokens=two + 19), 4096), (CONFIG, two + 19)]:
        kept, _ = infer(rows, ScriptedEngine(lambda *_: "- short", limit), config)
        assert kept[0].conversations == ("c8", "c7")
        shown = read(rows, config, limit)["ann"]
        assert "number7" in shown
        assert "number6" not in shown


def test_user_whose_newest_conversation_does_not_fit_is_dropped() -> None:
    rows = [talk("c", "word " * 500, "Yes?"), talk("d", "Hi.", "Yes?", user="ben")]
    kept, dropped = infer(rows, ScriptedEngine(lambda *_: "- short"), replace(CONFIG, history_tokens=200))
    assert [persona.user_id for persona in kept] == ["ben"]
    assert dropped == [Dropped("ann", "no_message_fits")]


def test_newest_conversation_that_does_not_fit_by_itself_is_passed_over() -> None:
    rows = [talk("old", "Be brief.", "Yes?"), talk("pasted", "word " * 500, "Yes?", day=1)]
    (kept,), dropped = infer(rows, ScriptedEngine(lambda *_: "- short"), replace(CONFIG, history_tokens=200))
    assert (kept.conversations, dropped) == (("old",), [])


def test_empty_reply_is_dropped() -> None:
    for reply in ("", " \n- \n*"):
        kept, dropped = infer([talk("c", "Hi.", "Yes?")], ScriptedEngine(lambda *_, said=reply: said), CONFIG)
        assert (kept, dropped) == ([], [Dropped("ann", "empty_persona")])


def test_points_are_cut_at_the_most_that_are_allowed() -> None:
    assert points("\n".join(f"{i}. point {i}" for i in range(1, 9)), 5).splitlines() == [
        f"- point {i}" for i in range(1, 6)
    ]


def test_points_lose_their_bullets_repetitions_and_empty_lines() -> None:
    assert points("* short\n\n  - short\n2) with numbers\n• 3.5 stars\n", 5) == "- short\n- with numbers\n- 3.5 stars"


def test_prompt_asks_for_as_many_points_as_configured() -> None:
    assert "at most 3 key points" in read([talk("c", "Hi.", "Yes?")], replace(CONFIG, max_points=3))["ann"]

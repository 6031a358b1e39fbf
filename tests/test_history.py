from collections.abc import Sequence

from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.history import Utterance, as_spoken, fitting, newest_first
from tests.rows import messages, talk

ENGINE = ScriptedEngine(lambda *_: "")


def ask(said: Sequence[Utterance]) -> Request:
    return Request("ann", messages(" ".join(["three words before", *(one.text for one in said)])))


def fit(texts: Sequence[str], limit: int, engine: ScriptedEngine = ENGINE) -> list[str]:
    return [one.text for one in fitting([Utterance("c", 0, text) for text in texts], ask, engine, limit)]


def test_users_messages_come_newest_first_with_their_place() -> None:
    rows = [talk("old", "system:Be kind.", "One.", "1", "Two."), talk("new", "Three.", "3", day=1)]
    assert newest_first(rows) == [
        Utterance("new", 0, "Three."),
        Utterance("old", 3, "Two."),
        Utterance("old", 1, "One."),
    ]


def test_prompt_is_filled_to_the_last_token() -> None:
    assert fit(["a b", "c d", "e"], 3 + 5) == ["a b", "c d", "e"]
    assert fit(["a b", "c d", "e"], 3 + 4) == ["a b", "c d"]


def test_what_is_longer_than_the_rest_is_passed_over() -> None:
    assert fit(["a b", "c d e f", "g"], 3 + 3) == ["a b", "g"]
    assert fit(["a b c d e f"], 3 + 3) == []


def test_prompt_never_exceeds_the_limit_where_joined_texts_cost_more_than_their_sum() -> None:
    class Dear(ScriptedEngine):
        def count_tokens(self, request: Request) -> int:
            return super().count_tokens(request) ** 2 // 4

    dear = Dear(lambda *_: "")
    texts = fit(["a b", "c d", "e f", "g h"], 10, dear)
    assert texts
    assert dear.count_tokens(ask([Utterance("c", 0, text) for text in texts])) <= 10


def test_messages_are_shown_as_spoken_under_the_newest_conversation() -> None:
    rows = [talk("old", "One.", "1", "Two."), talk("new", "Three.", "3", "Four.", day=1)]
    assert [one.text for one in as_spoken(newest_first(rows))] == ["Three.", "Four.", "One.", "Two."]

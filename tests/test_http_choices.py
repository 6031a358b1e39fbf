"""What a judge chose, as its tokens tell it, and over a real server."""

import math
from typing import Any

import pytest
from aiohttp import web

from rlhi.config import ModelConfig, ServerConfig
from rlhi.engine import Request, Scores, choose
from rlhi.engine.http.choices import scores
from rlhi.engine.http.engine import HttpEngine
from rlhi.engine.http.wire import Said, Token
from rlhi.errors import InputError
from tests.chat_server import ChatServer
from tests.rows import messages

AB = ["[A]", "[B]"]
LABELS = ["[[New]]", "[[Re-attempt with feedback]]", "[[Re-attempt without feedback]]", "[[Positive feedback]]"]


def said(*tokens: tuple[str, dict[str, float]], text: str | None = None) -> Said:
    """An answer of tokens, each with the probabilities in its place, its own among them."""
    made = tuple(Token(own, math.log(here[own]), {t: math.log(p) for t, p in here.items()}) for own, here in tokens)
    return Said(text or "".join(own for own, _ in tokens).strip(), "stop", made)


def test_choices_that_differ_in_their_first_token_score_its_probability() -> None:
    found = scores(said(("[B", {"[A": 0.3, "[B": 0.6, "The": 0.1}), ("]", {"]": 1.0})), AB)
    assert found == pytest.approx([math.log(0.3), math.log(0.6)])


def test_choices_that_share_a_beginning_score_where_they_part() -> None:
    found = scores(said((" [", {" [": 0.9, "I": 0.1}), ("A", {"A": 0.7, "B": 0.2, "C": 0.1}), ("]", {"]": 1.0})), AB)
    assert found == pytest.approx([math.log(0.9 * 0.7), math.log(0.9 * 0.2)])


def test_ways_to_spell_a_choice_are_added_up() -> None:
    found = scores(said(("[A]", {"[A]": 0.5, "[B": 0.2, "[B]": 0.1, " [B": 0.1, "[": 0.1})), AB)
    assert found == pytest.approx([math.log(0.5), math.log(0.4)])


def test_each_label_scores_at_its_own_fork() -> None:
    answer = said(
        ("[[", {"[[": 1.0}),
        ("Re", {"Re": 0.6, "New": 0.3, "Pos": 0.1}),
        ("-attempt", {"-attempt": 1.0}),
        (" without", {" without": 0.8, " with": 0.2}),
        (" feedback]]", {" feedback]]": 1.0}),
    )
    expected = [0.3, 0.6 * 0.2, 0.6 * 0.8, 0.1]
    assert scores(answer, LABELS) == pytest.approx([math.log(each) for each in expected])


def test_choice_that_the_server_does_not_list_scores_no_more_than_the_least_that_it_lists() -> None:
    assert scores(said(("[A", {"[A": 0.9, "x": 0.01}), ("]", {"]": 1.0})), AB) == pytest.approx(
        [math.log(0.9), math.log(0.01)]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[B]", [-1, 0]),
        ("Of [A] and [B] I prefer [A].", [0, -1]),
        ("neither", [-1, -1]),
        ("", [-1, -1]),
        ("A", [-1, -1]),
    ],
)
def test_text_without_logprobs_chooses_what_it_names_last_or_nothing(text: str, expected: list[float]) -> None:
    assert scores(Said(text, "stop", None), AB) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("I am not sure", [-1, -1]), ("M", [-1, 0]), ("Model m.", [0, -1]), ("Mm", [-1, -1])],
)
def test_choice_of_one_letter_is_not_found_inside_words(text: str, expected: list[float]) -> None:
    assert scores(Said(text, "stop", None), ["m", "M"]) == expected


def test_word_that_begins_with_a_choice_is_not_that_choice() -> None:
    found = scores(said(("m", {"m": 0.5, "M": 0.2, "Model": 0.2, " M": 0.1})), ["m", "M"])
    assert found == pytest.approx([math.log(0.5), math.log(0.3)])


def test_answer_that_was_cut_chooses_nothing_unless_it_began_with_the_choice() -> None:
    assert scores(Said("Of [A] and", "length", None), AB) == [-1, -1]
    assert scores(Said("[A] and", "content_filter", None), AB) == [-1, -1]
    begun = said(("[A]", {"[A]": 0.9, "[B]": 0.1}), (" for", {" for": 1.0}))
    assert scores(Said("[A] for", "length", begun.tokens), AB) == pytest.approx([math.log(0.9), math.log(0.1)])


def test_answer_that_says_more_than_the_choice_is_read_as_text() -> None:
    answer = said(("I ", {"I ": 1.0}), ("say ", {"say ": 1.0}), ("[B]", {"[B]": 0.9, "[A]": 0.1}))
    assert scores(answer, AB) == [-1, 0]


def test_logprobs_without_alternatives_tell_which_and_not_by_how_much() -> None:
    assert scores(Said("[B]", "stop", (Token("[B]", -0.1, {}),)), AB) == [-1, 0]


def ask(server: ChatServer, choices: list[str], **settings: Any) -> list[Scores]:
    engine = HttpEngine(ModelConfig(id="judge"), ServerConfig(url=server.url, **settings), first_wait=0.01)
    return choose(engine, [Request(f"r{i}", messages(f"question {i}")) for i in range(4)], choices)


def test_choices_are_in_the_order_of_the_requests() -> None:
    def says(body: dict[str, Any], sample: int) -> str:
        return AB["question 2" in body["messages"][0]["content"]]

    with ChatServer(says, lambda number: "500" if number % 2 else None) as server:
        assert ask(server, AB) == [[0, -1], [0, -1], [-1, 0], [0, -1]]


def test_structured_choice_is_asked_for_as_vllm_takes_it() -> None:
    with ChatServer(lambda body, k: "[B]") as server:
        ask(server, AB)
    assert all(body["structured_outputs"] == {"choice": AB} for body in server.bodies)
    assert all((body["temperature"], body["logprobs"], body["top_logprobs"]) == (0, True, 20) for body in server.bodies)


def test_server_without_structured_outputs_is_asked_for_text() -> None:
    with ChatServer(lambda body, k: "I choose [B]") as server:
        assert ask(server, AB, choice="text", logprobs=False) == [[-1, 0]] * 4
    assert not any({"structured_outputs", "logprobs", "top_logprobs"} & body.keys() for body in server.bodies)


def test_refused_field_is_named_in_the_servers_words() -> None:
    def fault(number: int) -> web.Response:
        return web.json_response({"error": {"message": "Unrecognized argument: structured_outputs"}}, status=400)

    with (
        ChatServer(fault=fault) as server,
        pytest.raises(InputError, match=r"structured_outputs; .*server\.choice=text"),
    ):
        ask(server, AB)

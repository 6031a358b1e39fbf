import pytest

from rlhi.persona.points import points, without_placeholders


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, I can't help with that.",
        "I’m sorry, but I cannot infer preferences from these messages.\n\nIf you share more, I can try again.",
        "Sorry, there is nothing to go on.",
        "As an AI, I do not have access to earlier conversations.",
        "As an AI language model, I can't determine that.",
        "There is not enough information to infer preferences.",
        "- There is not enough information to infer the user's preferences.",
        "There are no clear preferences in the messages.",
        "Not enough information.",
        "I don't have enough information about this user.",
        "I'm here to help. Please share your messages with me.",
        "I am a helpful AI assistant named Bo, trained to be clear.\n\nI will respond to every message.",
        "Unfortunately, the messages do not tell.",
        "Based on the messages provided, it is not possible to tell how the user likes answers.",
    ],
)
def test_refusal_is_no_persona(reply: str) -> None:
    assert points(reply, 5) == ("", "refused_persona")


@pytest.mark.parametrize("reply", ["", " \n\t", "-", "- \n*", "Here are the key points:", "### Preferences"])
def test_reply_that_says_nothing_is_empty(reply: str) -> None:
    assert points(reply, 5) == ("", "empty_persona")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            "Here are the key points:\n\n1. Prefers short answers.\n2. Likes numbers.\n\nLet me know if you need more!",
            "- Prefers short answers.\n- Likes numbers.",
        ),
        (
            "Based on the messages, this user wants the following.\n* Code only\n* No prose",
            "- Code only\n- No prose",
        ),
        ("**Key preferences**\n\nPrefers short answers.", "- Prefers short answers."),
        ("The user prefers concise, formal answers.", "- The user prefers concise, formal answers."),
        ("Prefers code.\nDislikes prose.", "- Prefers code.\n- Dislikes prose."),
        ("- **Tone:** formal and serious", "- **Tone:** formal and serious"),
        ("- Preferences:\n  - short\n  - sober", "- short\n- sober"),
        ("- Dislikes it when the assistant says sorry", "- Dislikes it when the assistant says sorry"),
        ("I'm sorry for the delay. The points:\n- short\n- I cannot tell more", "- short"),
        ("* short\n\n  - short\n2) with numbers\n• 3.5 stars\n", "- short\n- with numbers\n- 3.5 stars"),
        ("- short\n- [The End of User Messages]", "- short"),
        ("- I am a beginner and want plain words", "- I am a beginner and want plain words"),
        ("-short\n---\n-sober", "- short\n- sober"),
        ("Prefers code.\n---\nDislikes prose.", "- Prefers code.\n- Dislikes prose."),
        (
            "- No information should be left out\n- There is no need to greet\n- Insufficient detail annoys the user",
            "- No information should be left out\n- There is no need to greet\n- Insufficient detail annoys the user",
        ),
        ("3.5 stars or more for every place", "- 3.5 stars or more for every place"),
    ],
)
def test_points_are_what_is_listed_without_introductions_and_remarks(reply: str, said: str) -> None:
    assert points(reply, 5) == (said, None)


def test_points_are_cut_at_the_most_that_are_allowed() -> None:
    text, _ = points("\n".join(f"{i}. point {i}" for i in range(1, 9)), 5)
    assert text.splitlines() == [f"- point {i}" for i in range(1, 6)]


def test_point_of_placeholders_alone_is_no_point() -> None:
    redacted = "- [NAME]\n- Write to [EMAIL]\n- [ADDRESS], [PHONE].\n- Likes [square] brackets\n- **[NAME]**"
    assert without_placeholders(redacted) == "- Write to [EMAIL]\n- Likes [square] brackets"
    assert without_placeholders("") == ""

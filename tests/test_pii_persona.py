from collections import Counter

import pytest

from rlhi.pii import redact_persona


def clean(persona: str, *messages: str) -> str:
    return redact_persona(persona, messages)[0]


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("Hi, my name is Maria. Help me.", "Maria"),
        ("my name is maria and I teach", "Maria"),
        ("I'm Tobias, a nurse.", "Tobias"),
        ("I’m Tobias and I write.", "Tobias"),
        ("Please call me Priya from now on.", "Priya"),
        ("This is Olga from accounting.", "Olga"),
        ("Ich heiße Jürgen.", "Jürgen"),
        ("Me llamo Íñigo.", "Íñigo"),
        ("Draft a mail.\n\nRegards,\nHiroshi", "Hiroshi"),
        ("Thanks!\n  Anne-Marie", "Anne-Marie"),
        ("Dear Fatima,\nhow are you?", "Fatima"),
        ("Write to Dr. Okafor about it.", "Okafor"),
        ("A note for Ms Delgado", "Delgado"),
        ("My wife Ingrid likes it.", "Ingrid"),
        ("my son's name is Kofi", "Kofi"),
        ("I know a woman named Zsófia.", "Zsófia"),
        ("My name is Bo.", "Bo"),
        ("I read Mr. Zhou's research", "Zhou"),
    ],
)
def test_name_given_in_a_message_leaves_the_persona(message: str, name: str) -> None:
    assert clean(f"- {name} likes lists; {name}'s tone is dry", message) == "- [NAME] likes lists; [NAME]'s tone is dry"


def test_full_name_leaves_whole_and_in_parts() -> None:
    said = "My name is Lena Q. Vogel."
    assert clean("- Lena Q. Vogel, or Lena, or Ms. Vogel", said) == "- [NAME], or [NAME], or Ms. [NAME]"


def test_name_that_only_the_persona_gives_leaves_too() -> None:
    assert clean("- The user's name is Bogdan; Bogdan is brief") == "- The user's name is [NAME]; [NAME] is brief"
    assert clean("- Writes to Prof. Tanaka") == "- Writes to Prof. [NAME]"


def test_name_is_replaced_as_a_whole_word_only() -> None:
    assert clean("- Ann likes Annotations", "I'm Ann, hello") == "- [NAME] likes Annotations"


def test_name_that_is_a_common_word_leaves_where_it_cannot_be_the_word() -> None:
    said = "My name is Mark."
    assert (
        clean("- Mark the key points\n- the user Mark is brief", said)
        == "- Mark the key points\n- the user [NAME] is brief"
    )


@pytest.mark.parametrize(
    "message",
    [
        "I'm German, help me.",
        "I am Python, said the snake.",
        "Call me Monday.",
        "call me back, or call me ASAP",
        "Dear Hiring Manager,",
        "Hello World!",
        "Hi ChatGPT,",
        "Thanks,\nPython",
        "My name is not important",
        "I'm sorry, Excel crashed",
        "A framework called Laravel and a game named Minecraft",
    ],
)
def test_words_that_are_no_names_stay(message: str) -> None:
    persona = (
        "- German, Python, Monday, ASAP, Hiring Manager, World, ChatGPT and Excel, Not Important, Laravel, Minecraft"
    )
    assert clean(persona, message) == persona


def test_handle_is_a_name_and_a_decorator_is_none() -> None:
    assert clean("- posts as @quiet_fox7, asks @liwei.") == "- posts as [NAME], asks [NAME]."
    assert clean("- uses @property, @dataclass and @app.route") == "- uses @property, @dataclass and @app.route"


@pytest.mark.parametrize(
    "address",
    [
        "221B Baker Street",
        "1600 Amphitheatre Parkway, Mountain View, CA 94043",
        "12 W. 34th St., Apt 5B, New York, NY 10001",
        "77 Massachusetts Ave",
        "10 Downing Street, London SW1A 2AA",
        "Hauptstraße 12, 10115 Berlin",
        "Schillerplatz 4",
        "15 rue de la Paix",
        "24 avenue Victor Hugo, 75016 Paris",
        "Calle de Alcalá 45",
        "Via Garibaldi, 7",
        "P.O. Box 4412",
        "Springfield, IL 62704",
        "69115 Heidelberg",
        "1012 AB Amsterdam",
        "EC1A 1BB",
        "K1A 0B1",
    ],
)
def test_postal_address_leaves_the_persona(address: str) -> None:
    assert clean(f"- lives at {address}; likes lists").removesuffix("; likes lists") in (
        "- lives at [ADDRESS]",
        "- lives at [ADDRESS] [ADDRESS]",
    )


@pytest.mark.parametrize(
    "number",
    [
        "550e8400-e29b-41d4-a716-446655440000",
        "9fceb02d0ae598e95dc970b74767f19372d61af8",
        "1234567",
        "AB-123456",
        "#998877",
        "078-05-1120",
        "https://github.com/quietfox",
        "https://www.linkedin.com/in/quiet-fox-77",
        "https://forum.site/users/quietfox?tab=posts",
        "https://medium.com/@quietfox",
    ],
)
def test_id_leaves_the_persona(number: str) -> None:
    assert clean(f"- refers to {number}, often") == "- refers to [ID], often"


def test_folder_of_a_user_loses_the_name() -> None:
    assert (
        clean(r"- keeps files in /home/qfox/notes and C:\Users\qfox")
        == r"- keeps files in /home/[ID]/notes and C:\Users\[ID]"
    )


def test_kinds_of_ordinary_redaction_leave_too_and_all_is_counted() -> None:
    text, counts = redact_persona("- Maria (maria@corpmail.org, 415-555-2671) of 5 Elm Street", ["I'm Maria, hi"])
    assert text == "- [NAME] ([EMAIL], [PHONE]) of [ADDRESS]"
    assert counts == Counter(NAME=1, EMAIL=1, PHONE=1, ADDRESS=1)


@pytest.mark.parametrize(
    "persona",
    [
        "- prefers Python 3.11 examples",
        "- wants answers under 100 words",
        "- likes the APA 7th edition",
        "- asks for C++17",
        "- uses AWS S3 and EC2",
        "- wants 3 to 5 bullet points, at most 1,000 words",
        "- writes in British English, dates as 2024-03-01",
        "- prefers ISO 8601 and RFC 3339",
        "- likes Markdown tables; dislikes emojis",
        "- studies for the GRE in 2025",
        "- works with React 18 and Node 20 on Windows 11",
        "- wants step-by-step proofs, e.g. Theorem 2.1",
        "- links such as https://docs.python.org/3/library/re.html",
        "- asks for 10 Ways to say it",
        "- prefers Garamond 12 pt and 1.5 Spacing",
        "- costs in USD 10000 at most",
        "",
    ],
)
def test_persona_that_names_nobody_stays(persona: str) -> None:
    messages = ["I'm happy, thanks. My name is on the list. Call me later. Dear Sir or Madam,\nRegards,\nThe team"]
    assert redact_persona(persona, messages) == (persona, Counter())
    assert redact_persona(persona, []) == (persona, Counter())


def test_redacted_persona_stays() -> None:
    said = ["I'm Maria, hi"]
    once, _ = redact_persona("- Maria of 5 Elm Street, id 1234567, @fox_9, maria@corpmail.org", said)
    assert redact_persona(once, said) == (once, Counter())

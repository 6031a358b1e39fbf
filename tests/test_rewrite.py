from dataclasses import replace

import pytest

from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.records import Answer, Candidates, Conversation, Dropped, Label
from rlhi.rewrite.stage import RewriteConfig, refuse, rewrite
from tests.rows import messages, personas, talk, turn

CONFIG = RewriteConfig()
PERSONAS = personas("ann")
FEEDBACK: Label = "re-attempt with feedback"
TALK = talk("c", "Name a fruit.", "A fruit is a fig.", "Shorter.", "Fig.", "A nut.", "A nut is a kernel.", "Shorter!")


def run(
    row: Conversation, index: int, reply: str = "Fig.", config: RewriteConfig = CONFIG, label: Label = FEEDBACK
) -> tuple[list[Candidates], list[Dropped]]:
    return rewrite([turn(row, index, label)], {row.id: row}, PERSONAS, ScriptedEngine(lambda *_: reply), config)


def reason(row: Conversation, index: int, reply: str = "Fig.", label: Label = FEEDBACK) -> str:
    kept, (dropped,) = run(row, index, reply, label=label)
    assert kept == []
    assert dropped.id == f"{row.id}/{index}"
    return dropped.reason


def test_original_and_rewrite_answer_the_request_before_the_feedback() -> None:
    (found,), dropped = run(TALK, 2)
    assert dropped == []
    assert found == Candidates(
        id="c/2",
        user_id="ann",
        context=messages("Name a fruit."),
        persona="- short",
        follow_up="Shorter.",
        answers=(
            Answer("A fruit is a fig.", "original", None, None, None),
            Answer("Fig.", "rewrite", "stop", None, None),
        ),
    )


def test_later_rewrite_keeps_the_conversation_before_it() -> None:
    (found,), _ = run(TALK, 6)
    assert found.context == TALK.messages[:5]
    assert found.answers[0].text == "A nut is a kernel."


def test_rewriter_sees_the_conversation_and_the_feedback_but_no_persona() -> None:
    seen: list[Request] = []

    def reply(request: Request, _: int) -> str:
        seen.append(request)
        return "Fig."

    rewrite([turn(TALK, 2, FEEDBACK)], {"c": TALK}, PERSONAS, ScriptedEngine(reply), CONFIG)
    assert seen[0].messages[:-1] == TALK.messages[:2]
    assert "\nShorter.\n" in seen[0].messages[-1].content
    assert seen[0].persona is None


def test_from_scratch_sees_neither_answer_nor_feedback() -> None:
    echo = ScriptedEngine(lambda request, _: "|".join(message.content for message in request.messages))
    config = replace(CONFIG, from_scratch=True)
    (found,), _ = rewrite([turn(TALK, 6, FEEDBACK)], {"c": TALK}, PERSONAS, echo, config)
    assert found.answers[1].text == "Name a fruit.|A fruit is a fig.|Shorter.|Fig.|A nut."
    assert found.follow_up == "Shorter!"


def test_unchanged_rewrite_is_dropped() -> None:
    assert reason(TALK, 2, " A fruit\nis  a fig. ") == "unchanged"


def test_empty_rewrite_is_dropped() -> None:
    assert reason(TALK, 2, " \n") == "empty_answer"


@pytest.mark.parametrize(
    "text",
    ["Based on your feedback: fig.", "Here is the revised response: Fig.", "As the user's follow-up asks, fig."],
)
def test_rewrite_that_talks_about_the_feedback_is_dropped(text: str) -> None:
    assert reason(TALK, 2, text) == "mentions_feedback"


def test_rewrite_of_an_answer_about_feedback_may_talk_about_it() -> None:
    assert refuse("Ask for user feedback early.", "User feedback, early.") is None
    assert refuse("Ask early.", "Feedback loops amplify noise.") is None


@pytest.mark.parametrize("label", ["initial", "new", "re-attempt without feedback", "positive feedback"])
def test_turn_of_another_kind_is_dropped(label: Label) -> None:
    assert reason(TALK, 2, label=label) == "other_label"


def test_conversation_kept_for_evaluation_is_dropped() -> None:
    assert reason(replace(TALK, split="held-out"), 2) == "held_out"
    assert reason(replace(TALK, split="reference"), 2) == "held_out"


def test_user_without_a_persona_is_dropped() -> None:
    assert reason(replace(TALK, user_id="ben"), 2) == "no_persona"


def test_turn_whose_conversation_answer_or_follow_up_is_gone_is_dropped() -> None:
    other = talk("d", "Hi.")
    dropped = rewrite(
        [turn(TALK, 2, FEEDBACK), turn(other, 0, FEEDBACK), turn(other, 2, FEEDBACK)],
        {"d": other},
        PERSONAS,
        ScriptedEngine(lambda *_: "Fig."),
        CONFIG,
    )[1]
    assert [each.reason for each in dropped] == [
        "conversation_dropped",
        "nothing_to_revise",
        "follow_up_no_longer_applies",
    ]


def test_prompt_that_is_too_long_is_dropped() -> None:
    row = talk("c", "word " * 500, "Yes.", "Shorter.")
    engine = ScriptedEngine(lambda *_: "Fig.", max_prompt_tokens=300)
    assert rewrite([turn(row, 2, FEEDBACK)], {"c": row}, PERSONAS, engine, CONFIG) == (
        [],
        [Dropped("c/2", "prompt_too_long")],
    )


def test_cap_takes_so_many_answers_by_seed() -> None:
    rows = {f"c{i}": talk(f"c{i}", "Fruit?", "A fig.", "Shorter.") for i in range(9)}
    turns = [turn(row, 2, FEEDBACK) for row in rows.values()]
    config = replace(CONFIG, max_prompts=3)
    kept, dropped = rewrite(turns, rows, PERSONAS, ScriptedEngine(lambda *_: "Fig."), config)
    assert (len(kept), {each.reason for each in dropped}, len(dropped)) == (3, {"prompt_cap"}, 6)


def test_without_personas_none_is_needed() -> None:
    turns = [turn(TALK, 2, FEEDBACK)]
    (found,), dropped = rewrite(turns, {TALK.id: TALK}, None, ScriptedEngine(lambda *_: "Fig."), CONFIG)
    assert found.persona is None
    assert dropped == []
    nobody = personas("ben")
    assert (
        rewrite(turns, {TALK.id: TALK}, nobody, ScriptedEngine(lambda *_: "Fig."), CONFIG)[1][0].reason == "no_persona"
    )

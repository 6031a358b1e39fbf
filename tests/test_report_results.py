import re
from dataclasses import replace

from rlhi.evaluate.differences import Difference
from rlhi.evaluate.report import Report, render
from rlhi.evaluate.results import Results
from tests.evaluations import CONFIG, evaluated, held_out, likes, without
from tests.pages import Page
from tests.test_report import EMPTY, plain


def evaluation(results: Results) -> Report:
    return replace(EMPTY, results=results)


def test_tables_2_and_5_hold_our_figures_on_top_of_the_papers() -> None:
    page = evaluation(evaluated(likes("OURS")))
    text = re.sub(r"\s+", " ", Page(render(page)).text)
    assert "Nothing was trained, judged by nobody on held-out turns of its own logs" in text
    ours, papers = "100.0%100.0% to 100.0%", "38.2%30.6%32.5%"
    assert (
        f"this runcontext-only{ours * 3} this runpersona-guided{ours * 3} Llama-3.1-8B-Instructcontext-only{papers}"
        in text
    )
    assert "RLHI, user-guided rewritespersona-guided60.3%52.6%54.9%" in text


def test_run_that_met_no_log_has_no_row_beside_the_paper() -> None:
    text = Page(render(evaluation(evaluated(likes("OURS"), replace(CONFIG, opponents=("base",)))))).text
    assert "This run was not compared with the answers in the log" in text
    assert "this runcontext-only" not in text


def test_verdicts_that_cannot_be_read_are_shown_and_counted() -> None:
    found = evaluated(likes("OURS"))
    missing = without(found, found.turns[0].id)
    text = re.sub(r"\s+", " ", Page(render(evaluation(missing))).text)
    assert "2 verdicts of 12 turns could not be read: left out, not guessed." in text
    assert "the rate would lie between 91.7% and 100.0%" in text
    assert "11 of 12" in text
    assert "wins 11, losses 0, contradictions 0, without verdict 1." in text
    nothing = evaluated(likes(reads=False))
    assert (
        "No win rate was measured, so this page shows what was learned from" in Page(render(evaluation(nothing))).text
    )


def test_examples_are_wins_losses_and_contradictions_with_what_the_judge_said() -> None:
    page = render(evaluation(evaluated(likes("user-0?"))))  # the question is quoted by nobody: always the first
    cards = [attributes["data-kind"] for tag, attributes in Page(page).tags if "data-kind" in attributes]
    assert cards == ["flip"] * 12
    assert "usereval, against log, trained model shown second: log wins" in Page(page).text
    lost = Page(render(evaluation(evaluated(likes("LOG")))))
    assert {attributes["data-kind"] for _, attributes in lost.tags if "data-kind" in attributes} == {"loss"}


def test_controls_are_paired_and_named() -> None:
    modes = replace(CONFIG, modes=("context-only", "persona-guided", "shuffled-persona", "shuffled-judge"))
    text = Page(render(evaluation(evaluated(likes("for - likes"), modes)))).text
    assert "persona-guided less context-only: what the user's persona adds" in text
    assert "persona-guided less with another user's persona: what it adds for being this user's own" in text
    assert "log" + "personalization" + "+50.0" + "+50.0 to +50.0" in text
    assert "nothing tells here whether the persona" in Page(render(EMPTY)).text


def test_users_are_drawn_and_counted_by_side() -> None:
    text = Page(render(evaluation(evaluated(likes("user-0"))))).text
    assert "Of 4 users," in text
    assert ">4 users, the lowest first<" in render(evaluation(evaluated(likes("OURS"))))


def test_cost_names_what_was_asked_and_paid() -> None:
    text = Page(plain()).text
    assert "144 questions went to the judge" in text
    assert "evaluate9612––1.50" in text
    assert "No model was asked that counts what it is asked." in Page(render(EMPTY)).text


def test_few_users_are_said_to_be_too_few() -> None:
    text = Page(render(evaluation(evaluated(likes("OURS"), rows=held_out(users=1))))).text
    assert "Only one user was judged: too few" in text
    assert (
        "Only 2 users were judged, too few"
        in Page(render(evaluation(evaluated(likes("OURS"), rows=held_out(users=2))))).text
    )


def test_earlier_evaluation_stands_apart_from_the_controls() -> None:
    found = evaluated(likes("OURS"), replace(CONFIG, modes=("persona-guided",)))
    beside = Difference("log", "usereval", "evaluated", "earlier", "persona-guided", "all", 0.25, 0.1, 0.4, 0.03, 12, 4)
    text = Page(render(evaluation(replace(found, differences=[beside])))).text
    assert "evaluated less earlier" in text
    assert "log, persona-guidedusereval+25.0+10.0 to +40.00.030124" in text
    assert "nothing tells here whether the persona" in text

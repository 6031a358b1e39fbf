import base64
import hashlib
import re
import warnings
from dataclasses import replace
from functools import cache
from typing import get_args

import pytest

from rlhi import figures
from rlhi.classify.shares import LabelShares
from rlhi.dpo.figures import curves_svg
from rlhi.evaluate.headline import cautions, conclusion
from rlhi.evaluate.report import REASONS, SHOWN, Report, render, training_notes
from rlhi.evaluate.results import Results
from rlhi.evaluate.winrates import WinRate
from rlhi.manifest import FunnelRow
from rlhi.records import Message, Pair, Persona, Reason
from tests.evaluations import evaluated, held_out, likes
from tests.pages import Page

RATE = WinRate("log", "persona-guided", "usereval", 0.55, 0.48, 0.62, 212, 41, 0, 0.2, 0.55)
REWARD = replace(RATE, metric="reward", rate=0.66, low=0.6, high=0.72, disagreement=None, first_position=None)
HISTORY = [
    {"step": float(n), "loss": 0.7 - 0.01 * n, "logps/chosen": -200.0 - n, "logps/rejected": -190.0 - 3 * n}
    for n in range(1, 9)
]
NOTHING = Results([], [], [], [], [], [])
EMPTY = Report(
    title="a run",
    summary="Nothing was trained.",
    judge="nobody",
    results=NOTHING,
    funnel=[],
    pairs=[],
    personas=[],
    history=[],
    notes=[],
    settings={},
    measured={},
    labels=LabelShares("", {}),
)


def pair(name: str, text: str = "text") -> Pair:
    context = (Message("user", f"{text} asked"), Message("assistant", f"{text} answered"))
    return Pair(
        name, "ann", context, f"{text} persona", f"{text} more", f"{text} good", f"{text} bad", 1.5, 1.0, "rewrite"
    )


def full(text: str = "text") -> Report:
    return Report(
        title=f"{text} title",
        summary=f"{text} summary",
        funnel=[FunnelRow("ingest", 10, 7, {"language": 2, "empty_message": 1}), FunnelRow("rip", 0, 0, {})],
        judge=f"{text} judge",
        results=evaluated(likes("OURS"), trained=f"OURS {text} answer", rows=held_out(text=text)),
        pairs=[pair("p1", text), replace(pair("p2", text), chosen_reward=3.0)],
        personas=[Persona("ann", f"{text} persona", ("c1",), None)],
        history=HISTORY,
        notes=[f"{text} note"],
        warnings=[f"{text} warned"],
        settings={"dpo": {"model": {"id": text}, "beta": 0.1}},
        measured={"evaluate": {"replies/asked": 96.0, "replies/stored": 12.0, "cost/usd": 1.5}},
        labels=LabelShares(f"{text} labelled", {"new": 0.5, "positive feedback": 0.25, "unreadable_label": 0.25}),
    )


@cache
def plain() -> str:
    return render(full())


def test_hostile_text_adds_no_tag_and_is_shown_as_it_is() -> None:
    hostile = (
        "</script><script>alert(1)</script> \"><img src=x onerror=alert(1)> ' onclick=alert(1) {{ 7 * 7 }}{% raw %} "
        "</title></div></style><svg onload=alert(1)> <!-- --><base href=//evil.example> &lt; <![CDATA["
    )
    tame, page = Page(plain()), Page(render(full(hostile)))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in tame.tags]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    for part in (
        "title",
        "summary",
        "asked",
        "answered",
        "persona",
        "more",
        "good",
        "bad",
        "judge",
        "answer",
        "note",
        "warned",
        "labelled",
    ):
        assert f"{hostile} {part}" in page.text


def test_control_characters_are_shown_not_sent() -> None:
    page = render(full("a\x00b\x1b[31m\x9bc\ud800d\r\ne"))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", page)
    assert "a␀b␛[31m�c�d\ne asked" in page
    page.encode()


def test_page_loads_nothing_and_runs_only_its_own_script() -> None:
    page = render(full("https://example.org/x.png"))
    tags = Page(page).tags
    assert Page(page).loads() == []
    assert not re.search(r"url\((?!#)|@import", page)
    assert not any(tag in {"link", "iframe", "object", "embed", "base", "form"} for tag, _ in tags)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_line_breaks_of_answers_are_kept() -> None:
    code = "def f(x):\n    return x  # <x>"
    assert "def f(x):\n    return x  # &lt;x&gt;" in render(replace(EMPTY, pairs=[replace(pair("p"), chosen=code)]))


def test_empty_sections_say_so() -> None:
    text = Page(render(EMPTY)).text
    for sentence in (
        "No win rate was measured, so this page shows what was learned from, not whether it helped.",
        "No win rate was measured.",
        "No stage reported what it kept and dropped.",
        "No shares of labels were measured.",
        "No training history was recorded.",
        "There are no preference pairs to show.",
        "No personas were inferred.",
        "There are no examples from held-out turns to show.",
        "There are no notes.",
        "No settings were recorded.",
    ):
        assert sentence in text


def test_same_report_same_page() -> None:
    assert render(full()) == plain()


def test_ids_are_unique_among_the_drawings() -> None:
    ids = [attributes["id"] for _, attributes in Page(plain()).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_many_pairs_are_thinned_evenly_and_said_so() -> None:
    report = replace(EMPTY, pairs=[pair(f"p{n}", f"text{n:03}") for n in range(200)])
    text = Page(render(report)).text
    assert f"{SHOWN} of 200 pairs, evenly spread." in text
    shown = re.findall(r"text(\d+) good", text)
    assert len(shown) == SHOWN
    assert (shown[0], shown[-1]) == ("000", "199")


def test_every_reason_has_plain_words() -> None:
    assert set(REASONS) == set(get_args(Reason))


def test_label_shares_stand_beside_the_papers() -> None:
    text = Page(plain()).text
    assert "text labelled" in text
    assert "new50.00%40.40%\npositive feedback25.00%1.25%\nthe classifier's answer could not be read25.00%–" in text


def test_paper_figures_are_marked_as_not_comparable() -> None:
    text = Page(plain()).text
    assert "another model (Llama-3.1-8B-Instruct), another judge (o3) and other data (WildChat)" in text
    assert "62.5%" in text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.48, 0.62, "the interval includes 50%, so this run does not show a difference"),
        (0.51, 0.62, "the interval lies above 50%, so the trained model's answers are preferred"),
        (0.30, 0.49, "the interval lies below 50%, so the answer in the log is preferred"),
        (0.55, 0.55, "all users scored alike, so the interval has no width"),
        (None, None, "with fewer than two users there is no interval"),
    ],
)
def test_conclusion_follows_the_interval(low: float | None, high: float | None, said: str) -> None:
    judged, reward = conclusion([replace(RATE, low=low, high=high)])
    assert "On 212 held-out turns of 41 users" in judged
    assert said in judged
    assert "No win rate by reward was measured" in reward


def test_headline_is_usereval_persona_guided_against_the_log() -> None:
    others = [
        replace(RATE, opponent="base", rate=0.9),
        replace(RATE, mode="context-only", rate=0.8),
        replace(RATE, metric="personalization", rate=0.7),
        replace(REWARD, mode="context-only", rate=0.1),
    ]
    judged, reward = conclusion([*others, RATE, REWARD])
    assert "prefers the trained model's answer to the answer in the log 55.0% of the time" in judged
    assert "higher on 66.0% of 212 turns" in reward


def test_unsteady_judge_is_called_so_only_above_the_threshold() -> None:
    said = (
        "The judge contradicts itself on 42% of turns when the order is swapped: its verdicts carry little information"
    )
    assert cautions(replace(RATE, disagreement=0.3)) == []
    assert cautions(replace(RATE, disagreement=0.42))[0].startswith(said)
    assert (
        said
        in Page(render(replace(EMPTY, results=replace(NOTHING, win_rates=[replace(RATE, disagreement=0.42)])))).text
    )


def test_unread_verdicts_and_few_users_are_cautioned() -> None:
    unread, few = cautions(replace(RATE, unread=3, users=4))
    assert unread.startswith("3 verdicts could not be read")
    assert few.startswith("Only 4 users")


def test_best_validation_is_said() -> None:
    measured = [
        {"step": 4, "eval_loss": 0.65, "eval_rewards/accuracies": 0.625, "eval_rewards/margins": 0.12},
        {"step": 8, "eval_loss": 0.66, "eval_rewards/accuracies": 0.7, "eval_rewards/margins": 0.2},
    ]
    assert training_notes([*HISTORY, *measured])[-1] == (
        "On pairs of users that were not trained on, the loss was lowest at step 4: 0.650, with 62.5% ranked rightly "
        "and a margin of 0.120."
    )
    assert training_notes(HISTORY) == ["The loss went from 0.685 to 0.625."]
    assert training_notes(HISTORY[:1]) == []


def test_warnings_of_training_stand_beside_its_curves() -> None:
    page = render(replace(full(), warnings=["Both fall <far>."]))
    assert (
        '<p class="caution">Both fall &lt;far&gt;.</p>' in page[page.index('id="training"') : page.index('id="pairs"')]
    )


def test_figures_are_deterministic_and_quiet() -> None:
    report = full()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert figures.margins(report.pairs) == figures.margins(report.pairs)
            assert curves_svg(HISTORY) == curves_svg(HISTORY)
        assert figures.margins([]).startswith(b"\x89PNG")
        assert figures.margins(report.pairs[:1]).startswith(b"\x89PNG")


def test_funnel_names_the_top_reasons() -> None:
    picture = figures.funnel(
        [FunnelRow("rip", 100, 30, {"tie": 5, "gap_too_large": 40, "unscored": 20, "unchanged": 5})]
    )
    assert "gap too large 40 · unscored 20 · unchanged 5 · other 5" in picture
    assert "30 of 100" in picture


def test_win_rates_says_what_was_not_measured() -> None:
    missing = replace(RATE, rate=None, low=None, high=None)
    alone = replace(RATE, metric="personalization", low=None, high=None)
    picture = figures.win_rates([RATE, missing, alone])
    assert "55.0  [48.0, 62.0]" in picture
    assert "not measured" in picture
    assert "no interval" in picture


def test_training_leaves_out_what_was_not_recorded() -> None:
    picture = curves_svg([{"step": 1, "loss": 0.7}, {"step": 2, "loss": float("nan")}, {"train_runtime": 3.0}])
    assert ">loss<" in picture
    assert "accuracy" not in picture
    assert "No training history" in curves_svg([{"train_runtime": 3.0}])

import base64
import re
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from rlhi.analyze import figures, messages, traits
from rlhi.analyze.diversity import Diversity
from rlhi.analyze.estimates import Bootstrap
from rlhi.analyze.findings import Findings, Models, as_json, as_metrics
from rlhi.analyze.messages import LABELS, Said
from rlhi.analyze.page import SMALLEST, Judged, cautions, render, sentences
from rlhi.records import Label, Trait
from tests.pages import Page
from tests.rows import talk

DRAW = Bootstrap(200, 0)
PNG = base64.b64decode("iVBORw0KGgo=")
PICTURES = dict.fromkeys(("types_by_place", "lengths", "traits", "distances", "contexts"), PNG)
HOSTILE = (
    "</script><script>alert(1)</script> \"><img src=x onerror=alert(1)> ' onclick=alert(1) {{ 7 * 7 }}{% raw %} "
    "</title></style><svg onload=alert(1)> <!-- --><base href=//evil.example> \x1b[31m"
)


def dataset(name: str, distance: float | None = 0.8, low: float | None = 0.7, high: float | None = 0.9) -> Diversity:
    return Diversity(name, distance, low, high, 20, 40, 9, True, 3)


def said(user: str, label: Label, place: int, text: str = "text") -> Said:
    return Said(user, label, place, max(2, place), text, None if place == 1 else text)


SAID = [said(user, LABELS[min(place, 2)], place + 1) for user in ("ann", "ben", "cid") for place in range(8)]


def findings(given: list[Said] = SAID, *, name: str = "other", label_model: str = "org/big") -> Findings:
    rows = [talk(f"c{user}", *["Hi.", "Yes."] * 8, user=user) for user in ("ann", "ben", "cid")]
    judged = [Trait("ann", dimension, "first") for dimension in traits.DIMENSIONS]
    return Findings(
        messages=messages.measure(rows, given, DRAW),
        traits=traits.shares(judged, DRAW),
        unjudged={"unreadable_label": 2},
        datasets=[dataset("these conversations"), dataset(name, 0.5, 0.4, 0.6)],
        models=Models(label_model, "org/persona", "org/judge", "org/embed"),
    )


def page(text: str = "text", name: str = "other") -> str:
    own = {label: [Said("ann", label, 2, 3, text, f"{text} before")] for label in LABELS}
    return render(findings(name=name), PICTURES, own, [Judged(f"{text} user", f"{text} persona", {"tone": "first"})])


@cache
def plain() -> str:
    return page()


def test_hostile_text_adds_no_tag_and_is_shown_as_it_is() -> None:
    tame, odd = Page(plain()), Page(page(HOSTILE, HOSTILE))
    assert [tag for tag, _ in odd.tags] == [tag for tag, _ in tame.tags]
    assert not any(name.startswith("on") for _, attributes in odd.tags for name in attributes)
    shown = HOSTILE.replace("\x1b", "␛")
    for part in (shown, f"{shown} persona"):
        assert part in odd.text
    assert shown[:200] in odd.text


def test_page_loads_nothing_and_runs_nothing() -> None:
    tags = Page(page("https://example.org/x.png")).tags
    links = [a[name] or "" for _, a in tags for name in ("src", "href", "srcset", "action") if name in a]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'" in plain()
    assert not any(tag in {"script", "link", "iframe", "object", "embed", "base", "form"} for tag, _ in tags)
    assert not re.search(r"url\((?!#)|@import", plain())


def test_every_picture_says_what_it_shows_and_who_labelled_it() -> None:
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", plain(), re.DOTALL)
    assert len(captions) == len(PICTURES)
    for caption, model in zip(captions, ("big", "big", "judge", "embed", "embed"), strict=True):
        assert f"by org/{model}" in caption
    assert "Personas written by org/persona" in plain()


def test_tables_stand_beside_the_papers_figures() -> None:
    text = Page(plain()).text
    for figure in ("27.07%", "26.51%", "83.15%", "2.54", "725", "272", "24.1%", "59.8%", "84.5%", "0.865", "0.751"):
        assert figure in text


def test_what_was_not_judged_is_said() -> None:
    assert "tone: casual" in plain()
    assert "structure: not judged" in plain()
    assert "unreadable label 2" in " ".join(cautions(findings()))


def test_sentences_give_share_interval_paper_and_what_they_stand_on() -> None:
    feedback, distance = sentences(findings())
    assert (
        "75.0% of user messages are re-attempts with feedback (95% interval 75.0 to 75.0, 24 messages of 3 users"
        in (feedback)
    )
    assert "the paper: 26.51%" in feedback
    assert "After the fifth it is 100.0% (95% interval 100.0 to 100.0, 9 messages of 3 users; the paper: 83.15%)" in (
        feedback
    )
    assert distance == ("Two contexts of these conversations lie 0.800 apart on average; other 0.500 (less diverse).")


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (dataset("o", 0.95, 0.91, 0.99), "more diverse"),
        (dataset("o", 0.75, 0.71, 0.79), "the intervals do not tell them apart"),
        (dataset("o", 0.75, None, None), "no interval tells whether they differ"),
    ],
)
def test_datasets_are_compared_by_their_intervals(other: Diversity, expected: str) -> None:
    assert f"({expected})" in sentences(replace(findings(), datasets=[dataset("own"), other]))[-1]


def test_small_model_and_few_users_are_cautioned() -> None:
    assert any("Only 3 users" in caution for caution in cautions(findings()))
    assert not any("better than guessing" in caution for caution in cautions(findings()))
    assert any("better than guessing" in caution for caution in cautions(findings(label_model=SMALLEST)))


def test_metrics_leave_out_what_was_not_measured() -> None:
    metrics = as_metrics(findings([]))
    assert not any(name.startswith("share/") for name in metrics)
    assert metrics["context_distance/other"] == 0.5
    assert metrics["trait/tone/casual"] == 1
    assert "trait/tone/casual/low" not in metrics  # one user
    assert as_metrics(findings())["share_after_the_fifth/re-attempt with feedback"] == 1


def test_figures_for_programs_have_the_papers_as_shares() -> None:
    text = as_json(findings())
    assert '"paper": 0.2651' in text
    assert '"paper": 0.8315' in text
    assert "org/embed" in text


def test_pictures_are_the_same_every_time_and_quiet() -> None:
    found = findings()
    places = np.random.default_rng(0).normal(size=(30, 2))
    names = ["own"] * 10 + ["a dataset with a name so long that it has to be cut somewhere"] * 10 + ["$x_1$ <b>"] * 10

    def drawn() -> list[bytes]:
        return [
            figures.types_by_place(found.messages.places),
            figures.lengths(SAID),
            figures.traits(found.traits),
            figures.distances(found.datasets),
            figures.contexts(places, names),
        ]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn() == drawn()


def test_pictures_of_nothing_say_so() -> None:
    empty = findings([])
    nothing = [
        figures.types_by_place(empty.messages.places),
        figures.lengths([]),
        figures.traits(traits.shares([], DRAW)),
        figures.distances([dataset("own", None, None, None)]),
        figures.contexts(np.zeros((1, 2)), ["own"]),
    ]
    assert all(picture.startswith(b"\x89PNG") for picture in nothing)


def test_places_beyond_the_tenth_share_a_bar() -> None:
    counts = dict.fromkeys(LABELS, 0)
    places = {place: {**counts, "new": place} for place in (1, 10, 11, 12)}
    assert figures._bars(places) == [
        ("1", {**counts, "new": 1}),
        ("10", {**counts, "new": 10}),
        ("11+", {**counts, "new": 23}),
    ]

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rlhi.errors import InputError
from rlhi.evaluate.study.__main__ import main
from rlhi.evaluate.study.make import Plan, comparisons, deal, make
from rlhi.evaluate.study.results import agreement, results
from rlhi.evaluate.study.sheets import Choice, Item, Key, Sheet, read_key, read_sheets
from rlhi.records import Axis
from tests.evaluations import evaluated, held_out, likes, written
from tests.pages import Page

PLAN = Plan(3, 5, 2, ("usereval",), "log", "persona-guided", 0)
Chooses = Callable[[str, str], Choice]


class Cards(Page):
    """A page of a study as a person sees it: each card's answers by letter, and what its radio buttons are called."""

    def __init__(self, page: str) -> None:
        self.answers: list[dict[str, str]] = []
        self._label, self._into = "", ""
        super().__init__(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        given = dict(attrs)
        if tag == "article":
            self.answers.append({})
        self._into = (given.get("class") or "") if tag in ("span", "div") else ""

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        if self._into == "role":
            self._label = data
        elif self._into == "text" and self._label.startswith("answer "):
            self.answers[-1][self._label.removeprefix("answer ")] = data
        self._into = ""


def person(page: str, chooses: Chooses) -> dict[str, object]:
    """What a page saves when a person has chosen on every card, from the names and values of its radio buttons."""
    cards = Cards(page)
    main_tag = next(attributes for tag, attributes in cards.tags if tag == "main")
    choices: dict[str, dict[str, str]] = {}
    for name in dict.fromkeys(str(a["name"]) for tag, a in cards.tags if tag == "input"):
        number, axis = name.split(" ")
        shown = cards.answers[int(number) - 1]
        choices.setdefault(number, {})[axis] = chooses(shown["A"], shown["B"])
    return {"study": main_tag["data-study"], "person": int(main_tag["data-person"] or 0), "choices": choices}


def prefers(word: str) -> Chooses:
    return lambda a, b: "A" if word in a else "B" if word in b else "neither"


def studied(plan: Plan = PLAN, *, judge_likes: str = "OURS", text: str = "Name a fruit") -> tuple[list[str], Key]:
    found = evaluated(likes(judge_likes), rows=held_out(text=text))
    return make(comparisons(found.contests, found.verdicts, plan), plan, "the judge")


def sheet(saved: dict[str, object], folder: Path) -> Path:
    path = folder / f"{saved['person']}.json"
    path.write_text(json.dumps(saved))
    return path


def answered(chooses: Chooses, plan: Plan = PLAN, **given: str) -> tuple[list[Sheet], Key]:
    pages, key = studied(plan, **given)
    sheets = [json.loads(json.dumps(person(page, chooses))) for page in pages]
    return [
        Sheet(each["study"], each["person"], {int(n): made for n, made in each["choices"].items()}) for each in sheets
    ], key


def test_from_make_to_read_the_known_win_rate_comes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = written(tmp_path / "verdicts", evaluated(likes("OURS")))
    made = ["make", "--verdicts", str(verdicts), "--out", str(tmp_path / "pages"), "--key", str(tmp_path / "key.json")]
    assert main([*made, "--persons", "3", "--turns", "4", "--shared", "2"]) == 0
    assert "3 pages" in capsys.readouterr().out
    pages = sorted((tmp_path / "pages").glob("*.html"))
    chooses = [prefers("OURS"), prefers("LOG"), prefers("OURS")]
    sheets = [sheet(person(page.read_text(), way), tmp_path) for page, way in zip(pages, chooses, strict=True)]
    assert main(["read", *map(str, sheets), "--key", str(tmp_path / "key.json")]) == 0
    out = capsys.readouterr().out
    # two turns of 2/3, which all see, and two that each sees alone: (2/3 * 2 + 1 * 2 + 0 * 2 + 1 * 2) / 8
    assert "usereval: the model's answer wins 66.7%" in out
    assert "12 choices on 8 turns" in out
    assert "people agree with each other 33.3% of 6 comparisons, too few to tell" in out
    assert "people agree with the judge (SmolLM2-135M-Instruct) 66.7% of 12 comparisons" in out
    assert "too few users to tell" in out


def test_person_without_a_preference_counts_half_and_an_open_choice_not_at_all() -> None:
    sheets, key = answered(lambda *_: "neither")
    (found,) = results(sheets, key)
    assert (found.rate, found.neither, found.first, found.unanswered) == (0.5, found.choices, None, 0)
    some = [replace(each, choices=dict(list(each.choices.items())[:3])) for each in sheets]
    (found,) = results(some, key)
    assert (found.choices, found.unanswered) == (9, 6)


def test_person_who_always_takes_a_shows_up_in_the_position() -> None:
    sheets, key = answered(lambda *_: "A", replace(PLAN, turns=12, shared=12))
    (found,) = results(sheets, key)
    assert found.first == 1.0
    assert {person.first for person in found.each} == {1.0}
    assert found.rate is not None
    assert 0.2 < found.rate < 0.8


def test_every_axis_is_asked_and_reported() -> None:
    axes: tuple[Axis, ...] = ("personalization", "usereval")
    sheets, key = answered(prefers("OURS"), replace(PLAN, axes=axes))
    assert [(each.axis, each.rate) for each in results(sheets, key)] == [(axis, 1.0) for axis in axes]


def test_judge_that_says_the_contrary_is_never_agreed_with() -> None:
    sheets, key = answered(prefers("OURS"), judge_likes="LOG")
    (found,) = results(sheets, key)
    assert found.judge.same == 0.0
    assert found.persons.same == 1.0
    assert found.persons.alpha is None  # all say the same: nothing tells agreement from habit


def test_agreement_is_krippendorffs_nominal_alpha() -> None:
    # two raters, ten units, nine of them alike: Do = 2 / 20, De = 1 - (9 * 8 + 11 * 10) / (20 * 19)
    units = [[1.0, 1.0]] * 4 + [[0.0, 0.0]] * 5 + [[1.0, 0.0]]
    found = agreement(units)
    assert (found.same, found.compared) == (0.9, 10)
    assert found.alpha == pytest.approx(1 - 0.1 / (1 - (9 * 8 + 11 * 10) / (20 * 19)))
    assert agreement([]).same is None


def test_each_person_sees_the_shared_turns_no_turn_twice_and_together_as_many_as_can_be() -> None:
    turns = [f"t{n}" for n in range(40)]
    plan = replace(PLAN, persons=4, turns=10, shared=4)
    dealt = deal(turns, plan)
    assert all(len(own) == len(set(own)) == 10 for own in dealt)
    seen = Counter(turn for own in dealt for turn in own)
    assert sorted(seen.values()) == [1] * 24 + [4] * 4
    assert dealt == deal(turns[::-1], plan) != deal(turns, replace(plan, seed=1))
    assert [sorted(own) for own in deal(turns[:3], plan)] == [turns[:3]] * 4
    assert all(len(own) == 2 for own in deal(turns, replace(plan, turns=2)))


def test_card_is_the_same_wherever_our_answer_stands() -> None:
    pages, key = studied(replace(PLAN, persons=2, turns=12, shared=12))
    first, second = (cards_without_answers(page, items) for page, items in zip(pages, key.persons, strict=True))
    assert first == second
    sides = [{item.turn_id: item.ours for item in items} for items in key.persons]
    assert {sides[0][turn] == sides[1][turn] for turn in sides[0]} == {True, False}


def cards_without_answers(page: str, items: Sequence[Item]) -> dict[str, str]:
    """The source of each turn's card, without the answers' texts and its number."""
    cards = re.findall(r"<article.*?</article>", page, re.DOTALL)
    bare = [re.sub(r">(OURS|LOG)[^<]*<", "><", card) for card in cards]
    return {
        item.turn_id: re.sub(rf'(Turn |")({number})\b', r"\1", card)
        for number, (item, card) in enumerate(zip(items, bare, strict=True), 1)
    }


def test_page_names_no_model_no_judge_and_no_turn() -> None:
    pages, key = studied()
    for page, items in zip(pages, key.persons, strict=True):
        bare = re.sub(r">(OURS|LOG)[^<]*<", "><", page)
        for hint in ("trained", "log", "SmolLM", *(item.turn_id for item in items)):
            assert not re.search(rf"\b{hint}\b", re.sub(r"come from a log", "", bare))


def test_user_text_is_escaped_and_nothing_is_loaded() -> None:
    hostile = "</script><script>alert(1)</script><img src=//evil.example/x onerror=alert(1)>"
    tame, hurt = studied()[0][0], studied(text=hostile)[0][0]
    assert [tag for tag, _ in Page(hurt).tags] == [tag for tag, _ in Page(tame).tags]
    assert Page(hurt).loads() == []
    assert hostile in Page(hurt).text
    assert "default-src 'none'" in hurt


def test_key_must_not_lie_among_the_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = written(tmp_path / "verdicts", evaluated(likes("OURS")))
    made = [
        "make",
        "--verdicts",
        str(verdicts),
        "--out",
        str(tmp_path / "p"),
        "--key",
        str(tmp_path / "p" / "key.json"),
    ]
    assert main(made) == 2
    assert "lies among the pages" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_comparison_that_was_not_made_is_refused() -> None:
    with pytest.raises(InputError, match=r"no turn to show: the verdicts hold none against 'base', persona-guided"):
        studied(replace(PLAN, opponent="base"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"1\.json: not JSON"),
        ("[]", r"1\.json: expected a JSON object, got list"),
        ('{"study": "S", "person": 1}', r"1\.json: choices: Field required"),
        ('{"study": "S", "person": 0, "choices": {}}', r"1\.json: person: .* greater than or equal to 1, got 0"),
        (
            '{"study": "S", "person": 1, "choices": {"1": {"usereval": "C"}}}',
            r"1\.json: choices\.1\.usereval: .*got 'C'",
        ),
        ('{"study": "S", "person": 1, "choices": {"1": {"taste": "A"}}}', r"1\.json: choices\.1\.taste: "),
        (
            '{"study": "S", "person": 1, "choices": {"99": {"usereval": "A"}}}',
            r"choices\.99: the page holds turns 1 to 5",
        ),
        ('{"study": "S", "person": 1, "choices": {"1": {"personalization": "A"}}}', r"asks for usereval only"),
        ('{"study": "S", "person": 4, "choices": {}}', r"1\.json: person 4, the study has 3"),
        ('{"study": "other", "person": 1, "choices": {}}', r"1\.json: study 'other', the key is of "),
        ('{"study": "S", "person": 1, "choices": {}, "by": "me"}', r"1\.json: by: "),
    ],
)
def test_bad_sheet_is_named_with_its_field(tmp_path: Path, text: str, said: str) -> None:
    _, key = studied()
    path = tmp_path / "1.json"
    path.write_text(text.replace('"S"', json.dumps(key.study)))
    with pytest.raises(InputError, match=said):
        read_sheets([path], key)


def test_two_sheets_of_one_person_are_refused(tmp_path: Path) -> None:
    pages, key = studied()
    one = sheet(person(pages[0], prefers("OURS")), tmp_path)
    other = tmp_path / "again.json"
    other.write_bytes(one.read_bytes())
    with pytest.raises(InputError, match=r"again\.json: person 1, as .*1\.json; give one file a person"):
        read_sheets([one, other], key)


def test_sheet_is_no_key(tmp_path: Path) -> None:
    pages, _ = studied()
    with pytest.raises(InputError, match=r"1\.json: .*give the file that 'make' wrote as --key"):
        read_key(sheet(person(pages[0], prefers("OURS")), tmp_path))
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        read_key(tmp_path / "none.json")

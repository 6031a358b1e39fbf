"""Known tastes: the requests, the people, the rule and what is made of what was measured."""

import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import pytest
import yaml

from rlhi.config import ModelConfig
from rlhi.tastes import report
from rlhi.tastes.__main__ import main
from rlhi.tastes.config import TRAINED, Arm, TastesConfig, TrainingConfig
from rlhi.tastes.experiment import Place, write
from rlhi.tastes.heldout import HeldOut, forced, held_out, opposite
from rlhi.tastes.measuring import MODES, WAYS, Contrast, Given, repetition
from rlhi.tastes.people import DIMENSIONS, POLES, Words, all_tastes, balanced_people, persona, training_people
from rlhi.tastes.requests import MANNERS, NEW_FAMILIES, Use, asks, at_ease
from rlhi.tastes.results import gather
from rlhi.tastes.rule import Taste, measure, reward
from rlhi.tastes.twins import Drawing, draw, pairs
from rlhi.tastes.work import best

EXPANSIVE = Taste(1, 1, -1)  # long, lists, formal
EVERY: tuple[Use, ...] = ("train", "validation", "test")
SOURCE = Path(__file__).parents[1] / "components/rlhi/tastes"
CONFIG = TastesConfig(users=1, turns=2, contrasts=8, resamples=200)
NEUTRAL = set(  # words that say nothing of a manner
    re.findall(
        r"\w+",
        "a an the of in to with that as by or and is are be from for one like at than without it all not on does no "
        "out has have up when there would user just answers replies responses text information version tone style "
        "voice language facts manner over x",
    )
)


# --- requests and the rule ---


@pytest.mark.parametrize("manner", MANNERS)
def test_every_answer_is_what_its_manner_says_by_the_rule(manner: tuple[str, str, str]) -> None:
    length, structure, tone = manner
    for ask in [ask for use in EVERY for ask in asks(use)]:
        found = measure(ask.answer(manner))  # type: ignore[arg-type]

        assert (found.length > 0.8) == (length == "long")
        assert (found.structure > 0.8) == (structure == "list")
        assert (found.tone > 0.6) == (tone == "casual")


def test_no_subject_is_asked_about_in_two_uses_and_two_families_are_new() -> None:
    subjects = {use: {ask.id.rsplit("/", 1)[0] for ask in asks(use)} for use in EVERY}

    assert sum(map(len, subjects.values())) == len(set().union(*subjects.values())) == 156
    assert not {ask.id.split("/")[0] for ask in asks("train")} & set(NEW_FAMILIES)
    assert set(NEW_FAMILIES) < {ask.id.split("/")[0] for ask in asks("test")}


def test_casual_answers_have_short_forms() -> None:
    assert at_ease("It is fine. You will see that they do not leak.") == "It's fine. You'll see that they don't leak!"
    assert at_ease("Do not wait, you can not.") == "Don't wait, you can't!"


def test_saying_it_again_is_not_longer_and_more_than_enough_wins_nothing() -> None:
    sentence = "Put it where the light is soft and water it when the soil is dry. "
    many = " ".join(f"Point {number} is that the light should be soft and even." for number in range(20))

    assert measure(sentence * 30).length == measure(sentence).length == -1
    assert measure(many).length == measure(many + " And one more thing to say here.").length == 1


def test_what_pleases_one_displeases_the_opposite() -> None:
    for ask in asks("validation"):
        for taste in all_tastes():
            best, worst = ask.answer(taste.manner), ask.answer(taste.opposite.manner)

            assert reward(taste, best) > 0.9 > -0.9 > reward(taste, worst)
            assert reward(taste, best) == pytest.approx(-reward(taste.opposite, best))


def test_an_empty_answer_is_scored() -> None:
    assert measure("") == replace(measure(""), length=-1.0, structure=-1.0, tone=-1.0)


# --- people ---


def test_key_words_of_held_out_wordings_occur_in_no_training_wording() -> None:
    given = yaml.safe_load((SOURCE / "wordings.yaml").read_text())
    for lists in [*given["phrases"].values(), *given["frames"].values()]:
        train, validation, test = (_key_words(lists[use]) for use in EVERY)

        assert not test & (train | validation)
        assert not validation & train


def _key_words(lines: list[str]) -> set[str]:
    return {word for line in lines for word in re.findall(r"[a-z]+", line.lower())} - NEUTRAL


def test_a_persona_says_every_taste_in_new_words_each_time() -> None:
    (person, *_) = balanced_people(1, "test", 0)
    random = Random(0)
    found = [persona(person, Words("train"), random) for _ in range(20)]

    assert len(set(found)) == 20
    assert all(text.count(".") == 3 + len(person.others) for text in found)


def test_people_who_mind_lists_alone_say_nothing_else_and_score_nothing_else() -> None:
    lister = next(one for one in training_people(16, 0, ["structure"]) if one.taste.structure > 0)
    given = yaml.safe_load((SOURCE / "wordings.yaml").read_text())["phrases"]
    others = [phrase for name in ("short", "long", "casual", "formal") for phrase in given[name]["train"]]
    said = [persona(lister, Words("train"), Random(seed)) for seed in range(20)]
    (ask, *_) = asks("train")

    assert not [phrase for phrase in others if any(f" {phrase}." in text for text in said)]
    assert reward(lister.taste, ask.answer(("long", "list", "casual"))) == 1
    assert reward(lister.taste, ask.answer(("short", "list", "formal"))) == 1
    assert reward(lister.taste, ask.answer(("short", "prose", "formal"))) == -1


def test_what_is_said_against_names_the_opposite_manner() -> None:
    given = yaml.safe_load((SOURCE / "wordings.yaml").read_text())["phrases"]
    person = next(one for one in balanced_people(1, "train", 0) if one.taste == EXPANSIVE)
    random = Random(1)
    for _ in range(20):
        said = persona(person, Words("test", "against"), random)

        assert any(phrase in said for phrase in given["short"]["test"])
        assert any(phrase in said for phrase in given["prose"]["test"])
        assert any(phrase in said for phrase in given["casual"]["test"])


def test_training_users_lean_to_the_majority_and_test_users_do_not() -> None:
    train, test = training_people(64, 0), balanced_people(3, "test", 0)

    assert {person.taste for person in train} == set(all_tastes())
    assert sum(person.taste.length for person in train) > 0
    assert set(Counter(person.taste for person in test).values()) == {3}
    assert not {other for one in train for other in one.others} & {other for one in test for other in one.others}


# --- twins ---


def test_twins_share_request_and_answers_and_disagree() -> None:
    twins = draw(asks("train"), training_people(64, 0), Drawing(40, 0))
    made = pairs(twins, "user-based", [])

    assert len(made) == 80
    for one, other in zip(made[0::2], made[1::2], strict=True):
        assert one.context == other.context
        assert (one.chosen, one.rejected) == (other.rejected, other.chosen)
        assert one.persona != other.persona
        assert one.chosen_reward > one.rejected_reward


def test_training_personas_say_one_thing_and_nothing_that_tells_users_apart_beside_it() -> None:
    given = yaml.safe_load((SOURCE / "wordings.yaml").read_text())
    for number, one in enumerate(draw(asks("train"), training_people(64, 0), Drawing(60, 0))):
        phrases = [given["phrases"][manner]["train"] for manner in POLES[number % 3]]

        for text in one.personas:
            assert text.count(".") == 1
            assert sum(any(phrase in text for phrase in own) for own in phrases) >= 1
            assert not [trait for trait in given["others"]["train"] if trait in text]


def test_the_crowd_gives_twins_the_same_answer() -> None:
    people = training_people(64, 0)
    made = pairs(draw(asks("train"), people, Drawing(40, 0)), "user-agnostic", [person.taste for person in people])

    assert all(one.chosen == other.chosen for one, other in zip(made[0::2], made[1::2], strict=True))


def test_arms_train_on_the_same_but_for_the_order_of_answers() -> None:
    people = training_people(64, 0)
    twins = draw(asks("train"), people, Drawing(10, 0))
    own, crowd, sft = (pairs(twins, arm, [one.taste for one in people]) for arm in TRAINED)

    assert own == sft
    for one, other in zip(own, crowd, strict=True):
        assert (one.id, one.user_id, one.context, one.persona) == (
            other.id,
            other.user_id,
            other.context,
            other.persona,
        )
        assert {one.chosen, one.rejected} == {other.chosen, other.rejected}


def test_people_of_one_mind_form_no_twins() -> None:
    same = [one for one in training_people(64, 0) if one.taste == EXPANSIVE]

    with pytest.raises(ValueError, match="have no two who differ in length alone"):
        draw(asks("train"), same, Drawing(1, 0))


def test_twins_differ_in_one_dimension_and_so_do_their_answers() -> None:
    for number, one in enumerate(draw(asks("train"), training_people(64, 0), Drawing(60, 0))):
        dimension = DIMENSIONS[number % 3]
        first, second = (person.taste for person in one.people)

        assert first == second.but(dimension)
        assert one.answers == (one.ask.answer(first.manner), one.ask.answer(second.manner))


def test_wordings_are_few_at_first_and_all_of_them_in_the_end() -> None:
    twins = draw(asks("train"), training_people(64, 0), Drawing(400, 0))
    given = yaml.safe_load((SOURCE / "wordings.yaml").read_text())
    every = [phrase for lists in given["phrases"].values() for phrase in lists["train"]]
    few = [phrase for lists in given["phrases"].values() for phrase in lists["train"][:5]]
    used = [
        {phrase for one in part for text in one.personas for phrase in every if f" {phrase}." in text}
        for part in (twins[:20], twins)
    ]

    assert used[0] <= set(few)
    assert len(used[1]) > 0.9 * len(every)


def test_no_test_takes_anything_of_training() -> None:
    twins = draw(asks("train"), training_people(64, 0), Drawing(200, 0))
    held = held_out("test", (3, 4), 0)

    assert not {one.ask.id for one in twins} & {one.ask.id for one in held}
    assert not {text for one in twins for text in one.personas} & {one.turn.persona for one in held}
    assert not {one.id for two in twins for one in two.people} & {one.person.id for one in held}


def test_a_contrast_is_about_one_dimension_and_all_of_them_come_up() -> None:
    shown = forced("test", "for", 24, 0)
    assert Counter(one.dimension for one in shown) == dict.fromkeys(DIMENSIONS, 8)
    for one in shown:
        right, wrong = (measure(text) for text in one.answers)

        for name in DIMENSIONS:
            assert (getattr(right, name) * getattr(wrong, name) < 0) == (name == one.dimension)


# --- what is made of it ---


def test_a_run_of_words_said_again_is_repetition() -> None:
    assert repetition("one two three four five") == 0
    assert repetition("so it goes on " * 10) > 0.8
    assert repetition("too short") == 0


def said(held: HeldOut, arm: Arm, mode: str) -> str:
    """A perfect student of the user-based arm, a crowd pleaser, and two that never listen."""
    heard = {"persona-guided": held.person, "shuffled-persona": opposite(held.person)}.get(mode)
    usual = held.ask.answer(("long", "list", "formal"))
    if arm == "user-based" and heard is not None:
        return held.ask.answer(heard.taste.manner)
    return held.ask.answer(("long", "prose", "formal")) if arm == "user-agnostic" else usual


def made_up(work: Path, config: TastesConfig, arm: Arm) -> Place:
    place = Place(work, arm, config)
    given = []
    for held in held_out("test", (config.users, config.turns), config.seed):
        for mode in MODES:
            text = said(held, arm, mode)
            scored = reward(held.person.taste, text)
            given.append(Given(held.turn.id, held.turn.user_id, mode, text, scored, False, 9, 0.0, 10, -20.0))
    nats = 5.0 if arm == "user-based" else -1.0
    contrasts = [Contrast(way, "tone", True, nats) for way in WAYS]
    place.folder.mkdir(parents=True)
    write(
        place.measured,
        {"answers": [asdict(one) for one in given], "contrasts": [asdict(one) for one in contrasts]},
    )
    return place


@pytest.fixture
def places(tmp_path: Path) -> list[Place]:
    arms: tuple[Arm, ...] = ("base", *TRAINED)
    return [made_up(tmp_path, replace(CONFIG, seed=seed), arm) for seed in (0, 1) for arm in arms]


def test_who_listens_wins_and_loses_with_the_wrong_persona(places: list[Place]) -> None:
    found = gather(places, {})
    own = found.of("user-based")

    assert own.wins["persona-guided"].low is not None
    assert own.wins["persona-guided"].low > 0.8
    assert own.wins["shuffled-persona"].high is not None
    assert own.wins["shuffled-persona"].high < 0.2
    assert own.wins["context-only"].value == 0.5
    assert own.swapped.low is not None
    assert own.swapped.low > 0.6
    assert own.followed["structure"].value == pytest.approx(1)
    assert found.of("sft").followed["structure"].value == 0
    assert own.contrasts["against"] == 1
    assert (found.turns, found.users, found.seeds) == (32, 16, [0, 1])
    assert list(found.ahead) == ["user-agnostic", "sft"]
    assert found.ahead["sft"].difference.value == 0.4375  # one in eight likes what all say, and a tie is half a win
    assert found.ahead["sft"].p is not None
    assert found.ahead["sft"].p < 0.01


def test_who_pleases_the_crowd_loses_nothing_by_the_wrong_persona(places: list[Place]) -> None:
    agnostic = gather(places, {}).of("user-agnostic")

    assert agnostic.swapped.value == 0
    assert agnostic.contrasts["for"] == 0


def test_perplexity_is_by_token(places: list[Place]) -> None:
    assert gather(places, {}).of("base").texts["context-only"].perplexity == pytest.approx(7.389, abs=0.001)


def test_page_and_table_say_what_was_found(
    places: list[Place], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report.write(tmp_path, places, {})

    page = (tmp_path / report.PAGE).read_text()
    assert "User-based DPO beats the base model" in page
    assert "it does worse than that" in page
    assert main(["--work", str(tmp_path), "--table"]) == 0
    assert "| DPO, user-based rewards | 9" in capsys.readouterr().out
    assert report.load(tmp_path) == gather(places, {})


def test_table_of_nothing_names_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--work", str(tmp_path), "--table"]) == 2
    assert "run the experiment without --table first" in capsys.readouterr().err


def test_a_learning_rate_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--work", "w", "--learning-rates", "1e-3", "-2"])

    assert "expected a number above 0, got '-2'" in capsys.readouterr().err


def test_an_arm_keeps_the_rate_that_pleased_validation_users_most() -> None:
    tried: dict[Arm, dict[float, float]] = {"sft": {1e-3: 0.1, 2e-3: -0.1}}

    assert best(tried, "sft") == 1e-3
    assert best(tried, "base") is None


def test_arms_differ_in_loss_alone() -> None:
    config = TastesConfig(training=TrainingConfig(sft_weight=0.5))
    own, crowd, sft = (config.dpo(arm) for arm in TRAINED)

    assert own == crowd
    assert own.loss_type == ("sigmoid", "sft")
    assert replace(sft, loss_type=own.loss_type, loss_weights=own.loss_weights) == own


def test_another_setting_is_another_folder_and_the_seed_is_in_its_name() -> None:
    one, other = CONFIG, replace(CONFIG, training=replace(CONFIG.training, steps=7))

    assert one.training_name("sft") != other.training_name("sft")
    assert one.training_name("base") == other.training_name("base") == "base-0"
    assert replace(one, model=ModelConfig(id="x")).measuring_name != one.measuring_name

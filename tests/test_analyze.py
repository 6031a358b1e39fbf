import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest
from rlhi.analyze import messages
from rlhi.analyze.estimates import Bootstrap, estimate
from rlhi.analyze.messages import LABELS, Said, labelled
from rlhi.analyze.stage import AnalyzeConfig, as_judged, judge_all, models
from rlhi.analyze.traits import DIMENSIONS
from rlhi.artifacts import Input, Output
from rlhi.cli import main
from rlhi.config import as_dict
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.ingest.config import IngestConfig
from rlhi.records import Conversation, Label, Persona, Trait, Turn
from tests.rows import talk, turn

DRAW = Bootstrap(200, 0)
AGAIN: Label = "re-attempt with feedback"
PERSONAS = [Persona("ann", "- Skip the basics.", ("c1",)), Persona("ben", "- As a friend would talk.", ("c2",))]


def talks() -> list[Conversation]:
    """Ann writes three messages in one conversation and one in another, ben two."""
    return [
        talk("a1", "system:Be kind.", "Name a fruit.", "Fig.", "Shorter.", "Fig", "Thanks!", "Bye."),
        talk("a2", "Hi.", "Hello."),
        talk("b1", "A nut?", "Hazel.", "A longer one, please.", "Macadamia.", user="ben"),
    ]


def turns() -> list[Turn]:
    a1, a2, b1 = talks()
    return [
        turn(a1, 1, "initial"),
        turn(a1, 3, AGAIN),
        turn(a1, 5, "positive feedback"),
        turn(a2, 0, "initial"),
        turn(b1, 0, "initial"),
        turn(b1, 2, AGAIN),
    ]


def found(given: Sequence[Turn] | None = None) -> messages.Messages:
    rows = talks()
    return messages.measure(rows, labelled(rows, turns() if given is None else given), DRAW)


def test_message_knows_its_place_and_the_one_before() -> None:
    said = labelled(talks(), turns())
    assert said[2] == Said("ann", "positive feedback", 3, 3, "Thanks!", "Shorter.")
    assert [(each.place, each.among, each.before) for each in said[3:]] == [
        (1, 1, None),
        (1, 2, None),
        (2, 2, "A nut?"),
    ]


def test_turn_of_another_conversation_is_refused() -> None:
    other = turn(talk("c9", "Hi.", "Yes?"), 0, "initial")
    with pytest.raises(InputError, match="turn c9/0: is no user message of the conversations given"):
        labelled(talks(), [other])
    with pytest.raises(InputError, match="turn a2/0"):
        labelled(talks(), [replace(turns()[3], index=1)])


def test_shares_are_of_labelled_messages_and_add_up() -> None:
    shares = found().shares
    assert {label: share.value for label, share in shares.items()} == {
        "initial": 3 / 6,
        "new": 0,
        AGAIN: 2 / 6,
        "re-attempt without feedback": 0,
        "positive feedback": 1 / 6,
    }
    assert {(share.count, share.users) for share in shares.values()} == {(6, 2)}


def test_shares_of_several_turns_leave_out_lone_requests() -> None:
    share = found().shares_of_several["initial"]
    assert (share.value, share.count) == (2 / 5, 5)


def test_messages_without_a_label_are_counted_and_not_guessed() -> None:
    without = found(turns()[:-1])
    assert without.unlabelled == 1
    assert without.shares[AGAIN].value == 1 / 5


def test_after_the_fifth_begins_with_the_sixth() -> None:
    row = talk("c", *["More.", "Yes."] * 7)
    given = [turn(row, 2 * i, "initial" if i == 0 else "new" if i < 5 else AGAIN) for i in range(7)]
    late = messages.measure([row], labelled([row], given), DRAW)
    assert (late.shares_late[AGAIN].value, late.shares_late[AGAIN].count) == (1, 2)
    assert late.places[6] == {**dict.fromkeys(LABELS, 0), AGAIN: 1}
    assert list(late.places) == [1, 2, 3, 4, 5, 6, 7]


def test_lengths_are_in_characters_by_kind() -> None:
    lengths = found().lengths
    assert lengths[AGAIN].mean.value == (len("Shorter.") + len("A longer one, please.")) / 2
    assert lengths["initial"].median == len("A nut?")
    assert (lengths["new"].mean.value, lengths["new"].median) == (None, None)


def test_turns_per_conversation_count_user_messages() -> None:
    turns_found = found().turns
    assert (turns_found.value, turns_found.count, turns_found.users) == (2, 3, 2)


def test_interval_is_over_users_and_absent_for_one() -> None:
    same = [("ann", 1.0)] * 50 + [("ben", 0.0)] * 50
    spread = estimate(same, DRAW)
    assert (spread.value, spread.low, spread.high) == (0.5, 0, 1)
    alone = estimate(same[:50], DRAW)
    assert (alone.value, alone.low, alone.high, alone.count, alone.users) == (1, None, None, 50, 1)
    assert estimate([], DRAW).value is None


def test_examples_are_of_different_users() -> None:
    own = messages.examples(labelled(talks(), turns()))
    assert [each.text for each in own["initial"]] == ["Name a fruit.", "A nut?"]
    assert own["new"] == []


def test_without_personas_no_model_is_loaded() -> None:
    nowhere = replace(AnalyzeConfig().engine.model, id="/nowhere")
    config = replace(AnalyzeConfig(), engine=replace(AnalyzeConfig().engine, model=nowhere))
    assert judge_all([], config) == ([], [])


def test_page_gets_what_was_read_from_each_persona() -> None:
    kept = [Trait("ben", "tone", "first")]
    (judged,) = as_judged(PERSONAS, kept)
    assert (judged.user_id, judged.text, judged.preferences) == ("ben", PERSONAS[1].text, {"tone": "first"})


def test_models_are_named_for_the_reader() -> None:
    scripted = {"engine": {"kind": "scripted", "model": {"id": "embedded"}}}
    named = models({"engine": {"model": {"id": "org/big"}}}, scripted, AnalyzeConfig())
    assert (named.labels, named.personas) == ("org/big", "a script, not a model")
    assert (named.traits, named.embeddings) == ("SmolLM2-135M-Instruct", "all-MiniLM-L6-v2")


class Folder:
    """What analyze reads, and how it is called."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, name: str, record: type[Any], rows: Sequence[Any]) -> None:
        def write(output: Output[Any], config: object) -> None:
            output.write(rows, [], len(rows))

        execute(Call(name, write, {}, {}, "output", Output(self.path / name, record), IngestConfig()))

    def fill(self, rows: Sequence[Conversation], labels: Sequence[Turn], personas: Sequence[Persona]) -> None:
        self.put("conversations", Conversation, rows)
        self.put("turns", Turn, labels)
        self.put("personas", Persona, personas)

    def analyze(self, *flags: str) -> int:
        (self.path / "script.json").write_text(json.dumps([{"contains": "", "reply": "[[None]]"}]))
        argv = [f"--{name}={self.path / name}" for name in ("conversations", "turns", "personas", "traits")]
        script = [f"--engine.script={self.path / 'script.json'}", "--engine.kind=scripted", "--resamples=100"]
        return main(["analyze", *argv, *script, *flags])

    @property
    def figures(self) -> Any:
        return json.loads((self.path / "traits" / "analysis.json").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_command_writes_traits_figures_pictures_and_page(folder: Folder) -> None:
    folder.fill(talks(), turns(), PERSONAS)
    compared = folder.path / "other.jsonl"
    compared.write_text('{"prompt": "Who was Ada?"}\n{"prompt": "What is rain?"}\n{"prompt": "Sing."}\n')
    assert folder.analyze("--compare", str(compared)) == 0
    out = folder.path / "traits"
    assert len(Input(out, Trait).read()) == 8
    described = manifest.load(out)
    assert (described.rows_in, described.kept) == (8, 8)
    assert set(described.inputs) == {"conversations", "turns", "personas", "compare"}
    assert described.metrics["share/initial"] == 0.5
    assert described.metrics["trait/tone/none"] == 1
    assert set(described.prompt_hashes) >= {f"{dimension}.j2" for dimension in DIMENSIONS}
    names = {"types_by_place", "lengths", "traits", "distances", "contexts"}
    assert {path.stem for path in out.glob("*.png")} == names
    assert [each["name"] for each in folder.figures["context_diversity"]["datasets"]] == [
        "these conversations",
        "other",
    ]
    assert folder.figures["characters"]["initial"]["paper"] == 725
    assert folder.figures["models"]["traits"] == "a script, not a model"
    assert "Ada" not in (out / "analysis.html").read_text()


FEW: dict[str, tuple[list[Conversation], list[Turn], list[Persona]]] = {
    "no personas": (talks(), turns(), []),
    "no labels": (talks(), [], PERSONAS),
    "no follow-up": (talks()[1:2], turns()[3:4], PERSONAS),
    "one context, no persona": (talks()[1:2], turns()[3:4], []),
    "one user": (talks()[:2], turns()[:4], PERSONAS[:1]),
    "all labels equal": (talks(), [replace(each, label="initial") for each in turns()], PERSONAS),
    "nothing": ([], [], []),
}


@pytest.mark.parametrize("name", FEW)
def test_few_data_are_said_in_words_and_make_no_nan(name: str, folder: Folder) -> None:
    folder.fill(*FEW[name])
    assert folder.analyze() == 0
    text = (folder.path / "traits" / "analysis.json").read_text()
    assert "NaN" not in text
    page = (folder.path / "traits" / "analysis.html").read_text()
    assert "nan" not in page.replace("finan", "")
    said = {
        "no personas": "No persona could be judged.",
        "no labels": "No user message is labelled",
        "no follow-up": "No conversation has a second user message",
        "one context, no persona": "There are not two contexts",
        "one user": "One user only",
        "all labels equal": "No conversation goes on after its fifth user message",
        "nothing": "There are not two contexts",
    }
    assert said[name] in page


def test_same_input_makes_the_same_bytes(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Folder(tmp_path_factory.mktemp("other"))
    for each in (folder, other):
        each.fill(talks() * 1, turns(), PERSONAS)
        assert each.analyze() == 0
    for path in sorted((folder.path / "traits").glob("*.*")):
        if path.name != manifest.NAME:
            assert path.read_bytes() == (other.path / "traits" / path.name).read_bytes(), path.name


def test_missing_dataset_is_refused_in_one_line(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.fill(talks(), turns(), PERSONAS)
    assert folder.analyze("--compare", str(folder.path / "none.jsonl")) == 2
    assert "none.jsonl: no such file or folder" in capsys.readouterr().err
    assert not (folder.path / "traits").exists()


def test_config_of_the_recipes_is_read_back(folder: Folder) -> None:
    folder.fill(talks(), turns(), PERSONAS)
    assert folder.analyze("--config", json.dumps(as_dict(AnalyzeConfig(contexts=3)))) == 0
    assert folder.figures["context_diversity"]["datasets"][0]["contexts"] == 3

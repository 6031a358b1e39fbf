import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

from rlhi.config import ModelConfig
from rlhi.errors import InputError
from rlhi.records import Pair
from rlhi.reward.classifier import load_classifier
from rlhi.reward.contract import contract_of
from rlhi.reward.train.__main__ import main
from rlhi.reward.train.config import TrainingConfig
from rlhi.reward.train.preferences import Preference, read_preferences
from rlhi.reward.train.run import split
from tests.rows import answer, candidates, messages, pair
from tests.stage_rows import write_rows

FRUITS = ("fig", "date", "plum", "pear", "lime", "kiwi")
HH = "\n\nHuman: {asked}\n\nAssistant: {answer}"


def transcripts(*lines: tuple[str, str]) -> list[dict[str, str]]:
    return [{"chosen": chosen, "rejected": rejected} for chosen, rejected in lines]


def write(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.fixture(scope="module")
def polite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs in which the chosen answer says please; all of one length but for that."""
    rows = [
        {
            "chosen": HH.format(asked=f"Tell me of {first} and {second}.", answer=f"Please: {first}."),
            "rejected": HH.format(asked=f"Tell me of {first} and {second}.", answer=f"No, no, no {first}!!"),
        }
        for first in FRUITS
        for second in FRUITS
    ]
    return write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl.gz", rows)


def trained(model: Path, pairs: Path, out: Path, *flags: str) -> int:
    argv = ["--pairs", str(pairs), "--out", str(out), "--model.id", str(model), "--learning_rate", "0.02"]
    return main([*argv, "--batch_size", "8", "--held_out", "0.25", "--epochs", "4", *flags])


def test_model_learns_what_is_preferred_and_is_loaded_as_any_classifier(
    tiny_model: Path, polite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "polite"
    assert trained(tiny_model, polite, out) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["pairs"], figures["held_out"], figures["accuracy"]) == (27, 9, 1.0)
    assert figures["longer"] == 0.0
    card = (out / "README.md").read_text()
    assert "Of 9 held-out pairs it ranks 100.0% right" in card
    history = json.loads((out / "history.json").read_text())
    assert history[-1]["loss"] < 0.3 < history[0]["loss"]
    classifier = load_classifier(ModelConfig(id=str(out)), None, "packed", knows_persona=True)
    good, bad = classifier.score([candidates("c", answer("Please: Fig."), answer("No, no, no Fig!!"))])[0]
    assert good > bad  # type: ignore[operator]
    assert classifier.scale == "polite"
    plain = AutoModelForSequenceClassification.from_pretrained(str(out))
    assert plain.config.num_labels == 1


@pytest.mark.slow
def test_last_layers_alone_can_be_trained(tiny_model: Path, polite: Path, tmp_path: Path) -> None:
    assert trained(tiny_model, polite, tmp_path / "out", "--layers", "1", "--model.persona_role", "user") == 0
    plain, made = (
        AutoModelForSequenceClassification.from_pretrained(str(path), num_labels=1).state_dict()
        for path in (tiny_model, tmp_path / "out")
    )
    changed = {name for name in made if "score" not in name and not made[name].equal(plain[name])}
    assert changed
    assert all(name.startswith("model.layers.1.") for name in changed)
    assert contract_of(str(tmp_path / "out"), None).persona == "last-user"


def test_bad_settings_are_refused_in_one_line(
    tiny_model: Path, polite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "layers=9: the model has 2": ["--layers", "9"],
        "batch_size=7: is no multiple of micro_batch_size=4": ["--batch_size", "7"],
        "held_out: input should be less than 1": ["--held_out", "1"],
        "0 pairs to train on and": ["--max_tokens", "32"],
        "no such file": ["--pairs", str(tmp_path / "none")],
        "cannot be loaded": ["--model.id", str(tmp_path / "none")],
    }
    for said, flags in cases.items():
        assert trained(tiny_model, polite, tmp_path / "out", *flags) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert trained(tiny_model, polite, polite.parent) == 2
    assert "exists; choose another folder" in capsys.readouterr().err


def test_transcripts_become_pairs_or_are_dropped_with_a_reason(tmp_path: Path) -> None:
    start = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: A fruit?\n\nAssistant:"
    rows = transcripts(
        (f"{start} Fig.", f"{start} Go away.\n\nPlease."),
        (f"{start} Fig.", f"{start} Fig."),
        (f"{start} Fig.", f"{start} "),
        (f"{start} Fig.", "\n\nHuman: A nut?\n\nAssistant: Hazel."),
        (f"{start} Fig.\n\nHuman: Thanks.", f"{start} Go away."),
        ("\n\nHuman: Hi.\n\nHuman: A fruit?\n\nAssistant: Fig.", "\n\nHuman: Hi.\n\nHuman: A fruit?\n\nAssistant: No."),
        ("Fig.", "Date."),
    )
    found, dropped = read_preferences(str(write(tmp_path / "pairs.jsonl.gz", rows)))
    context = messages("Hi.", "Hello.", "A fruit?")
    assert found == [Preference("Hi.", context, None, "Fig.", "Go away.\n\nPlease.")]
    assert dropped == {
        "equal_answers": 1,
        "empty_answer": 1,
        "different_contexts": 1,
        "no_answer_at_the_end": 2,
        "roles_do_not_alternate": 1,
    }
    with pytest.raises(InputError, match=r"holds no pair \(not_a_pair 1\); rows need chosen and rejected"):
        read_preferences(str(write(tmp_path / "other.jsonl.gz", [{"text": "Hi."}])))


def test_own_pairs_are_read_from_their_folder_and_from_its_files(tmp_path: Path) -> None:
    written = write_rows(tmp_path / "pairs", Pair, [pair("a"), pair("b", said="A nut?")])
    found, dropped = read_preferences(str(written.path))
    assert [each.context for each in found] == [messages("Name a fruit."), messages("A nut?")]
    assert (found[0].persona, found[0].chosen, found[0].group) == ("- short", "Fig.", "ann")
    assert not dropped
    assert read_preferences(str(next(written.path.glob("part-*.parquet"))))[0] == found


def test_whole_groups_are_held_out_by_seed() -> None:
    pairs = [Preference(f"user {i % 20}", messages("Hi."), None, "a", str(i)) for i in range(100)]
    training, held_out = split(pairs, TrainingConfig(held_out=0.1))
    assert {each.group for each in training}.isdisjoint(each.group for each in held_out)
    assert len(held_out) == 10
    assert split(pairs[::-1], TrainingConfig(held_out=0.1))[1] == held_out[::-1]
    assert split(pairs, TrainingConfig(held_out=0.1, seed=1))[1] != held_out


def test_help_teaches_without_loading_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "rlhi.reward.train", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "loss = -log sigmoid(r(chosen) - r(rejected))" in told.stdout
    assert "import time" in told.stderr
    assert "| torch\n" not in told.stderr

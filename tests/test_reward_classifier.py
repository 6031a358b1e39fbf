import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhi.cli import main
from rlhi.config import ModelConfig
from rlhi.engine import tally
from rlhi.errors import InputError
from rlhi.manifest import load
from rlhi.records import Candidates
from rlhi.reward.classifier import Classifier, load_classifier
from rlhi.reward.model import Unscored
from rlhi.reward.stage import RewardConfig, open_reward, with_store
from tests.rewards import CHATML, FakeReward, make_classifier
from tests.rows import answer, candidates, messages
from tests.stage_rows import write_rows

ROWS = [
    candidates("one", answer("Fig."), answer("A fig is a fruit."), answer("\n\nDate.")),
    replace(
        candidates("two", answer("y"), answer("No. " * 30), persona="- long\n- with examples"),
        context=messages("system:Be kind.", "Hello.", "Hi.", "Is a fig a fruit?"),
    ),
]


@pytest.fixture(scope="module")
def tiny_reward(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("reward"), tiny_model)


def config(folder: Path) -> RewardConfig:
    return RewardConfig(kind="classifier", model=ModelConfig(id=str(folder)))


def open_classifier(folder: Path, layout: Any = "packed", *, knows_persona: bool = True) -> Classifier:
    return load_classifier(ModelConfig(id=str(folder)), None, layout, knows_persona=knows_persona)


def plain(folder: Path, row: Candidates, persona: str) -> list[float]:
    """The scores of stock code, one text at a time; the texts are written by hand."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(str(folder), dtype=torch.float32).eval()
    own = "".join(f"\n\n{said.content}" for said in row.context if said.role == "system")
    said = [("system", persona + own), *((one.role, one.content) for one in row.context if one.role != "system")]
    found = []
    for each in row.answers:
        turns = [*said, ("assistant", each.text)]
        text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
        with torch.inference_mode():
            found.append(float(model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits))
    return found


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_scores_are_those_of_a_plain_forward(tiny_model: Path, tmp_path: Path, family: str, layout: str) -> None:
    folder = make_classifier(tmp_path, tiny_model, family=family)
    for row, scores in zip(ROWS, open_classifier(folder, layout).score(ROWS), strict=True):
        persona = (
            "You are a helpful assistant who adapts to the person you talk to. The current request and the "
            "conversation so far come first. Where it fits, shape your answer to the user persona below.\n\n"
            f"User persona: {row.persona}"
        )
        assert scores == pytest.approx(plain(folder, row, persona), abs=1e-4)


def test_user_agnostic_scores_do_not_see_the_persona(tiny_reward: Path) -> None:
    agnostic = open_classifier(tiny_reward, knows_persona=False)
    others = [replace(row, persona=None) for row in ROWS]
    assert agnostic.score(others) == agnostic.score(ROWS)
    knowing = open_classifier(tiny_reward)
    assert knowing.score(ROWS) != agnostic.score(ROWS)
    assert knowing.score(others)[0] == [Unscored("no_persona")] * 3
    assert "user-agnostic" in agnostic.note
    assert knowing.identity != agnostic.identity


def test_scores_that_are_no_numbers_are_null(tiny_reward: Path) -> None:
    broken = open_classifier(tiny_reward)
    broken.model.score.weight.data.fill_(float("nan"))
    assert broken.score(ROWS[:1]) == [[Unscored("not_a_number")] * 3]
    assert broken.score([]) == []


def rewrite(folder: Path, target: Path, change: Any, **settings: object) -> Path:
    """The checkpoint with its tensors changed, and other settings in its config."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    save_file(change(load_file(folder / "model.safetensors")), target / "model.safetensors", {"format": "pt"})
    written = json.loads((folder / "config.json").read_text()) | settings
    (target / "config.json").write_text(json.dumps(written))
    return target


def headless(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if name != "score.weight"}


def with_value_head(tensors: dict[str, Any]) -> dict[str, Any]:
    return headless(tensors) | {"v_head.weight": tensors["score.weight"]}


def test_missing_head_is_refused_by_name(tiny_reward: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks score.weight, which would be random numbers; take a checkpoint"):
        open_reward(config(rewrite(tiny_reward, tmp_path / "without", headless)))
    with pytest.raises(InputError, match=r"lacks score.weight.* has v_head.weight: python -m rlhi.reward.athene"):
        open_reward(config(rewrite(tiny_reward, tmp_path / "other", with_value_head)))


def test_what_is_no_scalar_classifier_is_refused_before_its_weights_are_read(tiny_reward: Path, tmp_path: Path) -> None:
    def nothing(_: dict[str, Any]) -> dict[str, Any]:
        return {}

    cases: dict[str, dict[str, Any]] = {
        "is no \\*ForSequenceClassification": {"architectures": ["LlamaForCausalLM"]},
        "for Athene, python -m rlhi.reward.athene": {"architectures": ["CustomAutoModelForSequenceClassification"]},
        "has 2 labels, a reward model has one": {"id2label": {"0": "bad", "1": "good"}},
        "BertForSequenceClassification is no": {"architectures": ["BertForSequenceClassification"]},
    }
    for place, (said, settings) in enumerate(cases.items()):
        with pytest.raises(InputError, match=said):
            open_reward(config(rewrite(tiny_reward, tmp_path / str(place), nothing, **settings)))
    with pytest.raises(InputError, match="'embedded': is no reward model"):
        open_reward(RewardConfig(kind="classifier"))
    with pytest.raises(InputError, match=r"nowhere.*cannot be loaded"):
        open_reward(replace(config(tmp_path / "nowhere"), contract=CHATML))


def test_random_head_does_not_pass_the_probe(tiny_reward: Path, tmp_path: Path) -> None:
    def upside_down(tensors: dict[str, Any]) -> dict[str, Any]:
        return tensors | {"score.weight": -tensors["score.weight"]}

    with pytest.raises(InputError, match="ranks only 0 of 7 good answers above plainly bad ones"):
        open_reward(config(rewrite(tiny_reward, tmp_path / "random", upside_down)))


def test_stage_writes_rewards_and_the_contract_into_the_manifest(tiny_reward: Path, tmp_path: Path) -> None:
    rows = [*ROWS, candidates("three", answer("Fig."), answer(""))]
    write_rows(tmp_path / "sampled", Candidates, rows)
    argv = ["reward", "--candidates", str(tmp_path / "sampled"), "--scored", str(tmp_path / "scored")]
    assert main([*argv, "--kind", "classifier", "--model.id", str(tiny_reward)]) == 0
    described = load(tmp_path / "scored")
    assert (described.kept, described.dropped) == (2, {"unscored": 1})
    assert described.notes["reward_scale"] == "tiny"
    assert "tokens of beginning: 0, the persona in the system message, at most 1024 tokens" in described.notes["reward"]
    assert described.metrics["reward/null/empty_answer"] == 1


def test_nothing_is_scored_twice(tiny_reward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    first = open_reward(config(tiny_reward)).score(ROWS)
    since = tally.since()
    assert open_reward(config(tiny_reward)).score(ROWS) == first
    counts = since()
    assert (counts["scored"], counts["scores_stored"]) == (0, 2)
    since = tally.since()
    open_reward(replace(config(tiny_reward), persona="off")).score(ROWS)
    open_reward(config(tiny_reward)).score([replace(ROWS[0], persona="- other")])
    counts = since()
    assert (counts["scored"], counts["scores_stored"]) == (3, 0)


def test_what_was_scored_before_a_kill_is_kept_with_its_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    rows = [candidates(f"c{i}", answer("Fig." * (i + 1)), answer("?")) for i in range(40)]

    def killed(row: Candidates, text: str) -> float | Unscored:
        if row.id == "c20":
            raise KeyboardInterrupt
        return Unscored("too_long") if text == "?" else float(len(text))

    with pytest.raises(KeyboardInterrupt):
        with_store(FakeReward(killed)).score(rows)
    again = FakeReward(lambda row, text: Unscored("too_long") if text == "?" else float(len(text)))
    assert with_store(again).score(rows) == again.score(rows)
    assert again.seen[:24] == [f"c{i}" for i in range(16, 40)]

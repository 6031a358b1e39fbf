from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from rlhi.config import ModelConfig
from rlhi.dpo.card import CURVES, Card, measure, render
from rlhi.dpo.config import DpoConfig
from rlhi.dpo.figures import curves_png
from rlhi.manifest import FunnelRow

HISTORY = [
    {"step": 1.0, "loss": 0.693, "learning_rate": 5e-7, "rewards/margins": 0.0},
    {"step": 1.0, "eval_loss": 0.69},
    {"step": 2.0, "loss": 0.5, "learning_rate": 2e-7, "rewards/margins": 0.4},
    {"step": 2.0, "eval_loss": 0.7},
]
GAINS = [("ann", 1.0, -3.0), ("ann", 0.5, 0.0), ("ben", -2.0, -1.0), ("cam", 0.0, -1.5)]
CARD = Card(
    config=DpoConfig(model=ModelConfig(id="someone/Model-1B-Instruct", revision="abc123")),
    pairs=1200,
    users=41,
    digests={"pairs": "5f3c", "scored": "aaaa"},
    funnel=[FunnelRow("rip", 10, 6, {"tie": 3, "equal_answers": 1}), FunnelRow("dpo", 6, 6, {})],
    history=HISTORY,
    measured=measure(GAINS, beta=0.1, seed=0),
    warnings=["Both fall."],
    code_version="0.1.0+1234",
)


def test_front_matter_is_the_hubs_and_the_license_is_left_open() -> None:
    data = ModelCard(render(CARD)).data.to_dict()
    assert data == {
        "base_model": "someone/Model-1B-Instruct",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["rlhi", "personalization", "dpo", "lora"],
        "data_digests": {"pairs": "5f3c", "scored": "aaaa"},
    }


def test_card_tells_data_recipe_figures_and_warnings() -> None:
    text = render(CARD)
    for said in (
        "A LoRA adapter, trained by persona-conditioned DPO on 1,200 preference pairs of 41 users.",
        "| scored | `aaaa` |",
        "| rip | 10 | 6 | tie 3, equal_answers 1 |",
        "−log σ(β",
        "Reference: the base model.",
        "| learning_rate | `5e-07` |",
        "| model.persona_role | `system` |",
        "| steps | 2 |",
        "| training loss, first and last step | 0.693, 0.500 |",
        "| lowest validation loss | 0.690, at step 1 |",
        "| validation pairs | 4 of 3 users, none of whom was trained on |",
        "| validation accuracy: chosen ranked first | 75.0% (95% interval 0.0% to 100.0%, users drawn) |",
        "| validation margin: β · nats | 0.125 (95% interval",
        f"]({CURVES})",
        "- Both fall.",
        'base = "someone/Model-1B-Instruct"',
        'from_pretrained(base, revision="abc123")',
        "--max-lora-rank 16 ",
    ):
        assert said in text
    assert all(name in text for name in DpoConfig.__dataclass_fields__ if name != "model")


def test_margins_are_in_betas_and_intervals_by_user() -> None:
    found = measure(GAINS, beta=0.1, seed=0)
    assert found is not None
    assert (found.pairs, found.users, found.accuracy) == (4, 3, 0.75)
    assert found.margin == pytest.approx(0.1 * (4 + 0.5 - 1 + 1.5) / 4)
    assert found.margin_interval is not None
    assert found.margin_interval[0] < 0 < found.margin_interval[1]
    alone = measure(GAINS[:2], beta=0.1, seed=0)
    assert alone is not None
    assert alone.accuracy_interval is None
    assert measure([], beta=0.1, seed=0) is None


def test_what_is_not_there_is_said_to_be_missing() -> None:
    text = render(replace(CARD, measured=None, warnings=[], history=HISTORY[::2]))
    assert "No pairs were kept from training to measure it." in text
    assert "Nothing in the curves or in the lengths of the answers called for one." in text
    assert "lowest validation loss" not in text
    assert "(no interval: fewer than two users)" in render(replace(CARD, measured=measure(GAINS[:1], 0.1, 0)))


def test_all_weights_of_an_sft_are_described_as_such() -> None:
    config = replace(CARD.config, lora_rank=None, loss_type=("sft",))
    text = render(replace(CARD, config=config, start="0123"))
    data = ModelCard(text).data.to_dict()
    assert (data["library_name"], data["base_model_relation"]) == ("transformers", "finetune")
    assert data["tags"] == ["rlhi", "personalization", "sft"]
    assert "Reference" not in text
    assert "Started from the model with digest `0123`" in text
    assert 'from_pretrained("weights")' in text
    assert "peft" not in text


@pytest.mark.parametrize(
    ("model", "base"),
    [("embedded", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("/models/mine", None), ("./models", None)],
)
def test_only_a_model_of_the_hub_is_named_as_one(model: str, base: str | None) -> None:
    text = render(replace(CARD, config=DpoConfig(model=ModelConfig(id=model))))
    assert ModelCard(text).data.to_dict().get("base_model") == base


def test_same_training_same_card_and_picture() -> None:
    assert render(CARD) == render(CARD)
    assert curves_png(HISTORY) == curves_png(HISTORY)

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaModel,
    LlamaPreTrainedModel,
    PreTrainedTokenizerFast,
)

from rlhi.config import ModelConfig
from rlhi.records import Candidates
from rlhi.reward.athene import main
from rlhi.reward.classifier import load_classifier
from rlhi.reward.contract import contract_of
from tests.rewards import SIZES
from tests.rows import answer, candidates, messages

SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
CLS = "<|reserved_special_token_1|>"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
ROWS = [
    candidates("one", answer("Fig."), answer("A fig is a fruit."), persona=None),
    Candidates("two", "ann", messages("system:Be kind.", "Hi.", "Hello.", "Go on."), None, None, (answer("y"),)),
]


class Original(LlamaPreTrainedModel):  # type: ignore[misc]
    """As the model card has it: the head on every token, read at the last closing token."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        self.v_head = torch.nn.Linear(config.hidden_size, 1, bias=False)
        self.post_init()

    def rewards(self, closing: int, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        every = self.v_head(self.model(input_ids, attention_mask=attention_mask).last_hidden_state).squeeze(-1)
        return torch.stack(
            [own[(ids == closing).nonzero()[-1].item()] for own, ids in zip(every, input_ids, strict=True)]
        )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of Athene's making: bfloat16, two shards, a tokenizer that writes a beginning of its own."""
    folder = tmp_path_factory.mktemp("athene")
    alphabet = [*SPECIAL, CLS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    raw = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.post_processor = TemplateProcessing(single=f"{SPECIAL[0]} $A", special_tokens=[(SPECIAL[0], 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        pad_token=CLS,  # a trap: texts end with it
        cls_token=CLS,
        additional_special_tokens=SPECIAL[3:],
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(**SIZES, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, bos_token_id=0)
    Original(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="30KB")
    settings = json.loads((folder / "config.json").read_text())
    written = settings | {"architectures": ["CustomAutoModelForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(written))
    return folder


@pytest.fixture(scope="module")
def target(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "athene"
    assert main([str(source), str(folder)]) == 0
    return folder


def inputs(source: Path, row: Candidates) -> dict[str, torch.Tensor]:
    """What the model card's pipeline makes of a row: template, closing token, and the tokenizer's own beginning."""
    tokenizer = AutoTokenizer.from_pretrained(str(source))
    turns = [{"role": said.role, "content": said.content} for said in row.context]
    texts = [
        tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": each.text}], tokenize=False)
        for each in row.answers
    ]
    tokenizer.pad_token = SPECIAL[1]
    found: dict[str, torch.Tensor] = tokenizer(
        [text + CLS for text in texts], return_tensors="pt", padding="longest", max_length=4096, truncation=True
    )
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def test_rewards_of_the_converted_checkpoint_are_bit_equal(source: Path, target: Path) -> None:
    original = Original.from_pretrained(str(source), dtype=torch.bfloat16).eval()
    converted = AutoModelForSequenceClassification.from_pretrained(str(target), dtype=torch.bfloat16).eval()
    converted.config.pad_token_id = 1  # what `inputs` pads with
    closing = AutoTokenizer.from_pretrained(str(source)).convert_tokens_to_ids(CLS)
    for row in ROWS:
        given = inputs(source, row)
        with torch.inference_mode():
            expected = original.rewards(closing, **given)
            assert torch.equal(converted(**given).logits[:, 0], expected)
        assert len(set(expected.tolist())) == len(row.answers)


def test_classifier_reads_what_the_original_read(source: Path, target: Path) -> None:
    original = Original.from_pretrained(str(source), dtype=torch.float32).eval()
    classifier = load_classifier(ModelConfig(id=str(target)), None, "packed", knows_persona=False)
    for row, scores in zip(ROWS, classifier.score(ROWS), strict=True):
        given = inputs(source, row)
        lengths = given["attention_mask"].sum(1).tolist()
        assert [classifier.reader.read(row)] == [
            [ids[:n].tolist() for ids, n in zip(given["input_ids"], lengths, strict=True)]
        ]
        with torch.inference_mode():
            assert scores == pytest.approx(original.rewards(5, **given).tolist(), abs=1e-4)
    assert classifier.scale == "Athene-RM-8B"


def test_contract_and_padding_are_written_beside_it(target: Path) -> None:
    contract = contract_of(str(target), None)
    assert (contract.bos, contract.closing, contract.max_tokens) == (2, CLS, 4096)
    settings = json.loads((target / "config.json").read_text())
    assert settings["pad_token_id"] == SPECIAL.index("<|eot_id|>")
    assert settings["problem_type"] == "regression"
    assert list(target.glob("model-0000*.safetensors"))


def test_what_is_no_such_checkpoint_is_refused_in_one_line(
    source: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "exists; choose another folder": [str(source), str(target)],
        "hold no v_head.weight; only checkpoints made like Athene's": [str(target), str(tmp_path / "a")],
        "holds no config.json with": [str(tmp_path), str(tmp_path / "b")],
    }
    for said, argv in cases.items():
        assert main(argv) == 2
        assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_conversion_that_fails_leaves_nothing(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(source, broken)
    (broken / "config.json").write_text("{")
    assert main([str(broken), str(tmp_path / "out")]) == 2
    assert "broken: cannot be read" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]

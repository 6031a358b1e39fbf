import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from rlhi.config import ModelConfig
from rlhi.dpo.merge import main, merge
from rlhi.engine import embedded
from rlhi.manifest import Manifest
from tests.s3_server import client, use
from tests.test_tracking import RIP


def adapter(base: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """An adapter whose both matrices are random, so that it changes every layer."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    trained = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    trained.save_pretrained(str(folder / "adapter"))
    return folder / "adapter"


def output(base: str, folder: Path) -> Manifest:
    """What dpo would have left in ``folder``."""
    adapter(base, folder)
    described = replace(RIP, stage="dpo", config={"model": {"id": base}})
    described.save(folder)
    return described


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.arange(3, 40)[None]).logits
    return found


def pefts(base: str, made: Path, dtype: torch.dtype) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    return logits(PeftModel.from_pretrained(model, str(made)).merge_and_unload())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_checkpoint_is_bit_equal_to_pefts(tiny_model: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    GenerationConfig(temperature=0.3, do_sample=True).save_pretrained(base)
    made = adapter(str(base), tmp_path, dtype)

    merge(ModelConfig(id=str(base)), made, tmp_path / "merged")

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert merged.dtype == dtype
    assert torch.equal(logits(merged), pefts(str(base), made, dtype))
    assert not torch.equal(logits(merged), logits(AutoModelForCausalLM.from_pretrained(base, dtype=dtype)))
    assert merged.generation_config.temperature == 0.3
    tokenizer, given = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "merged", base))
    assert tokenizer.chat_template == given.chat_template
    assert tokenizer("a fig").input_ids == given("a fig").input_ids
    assert [*(tmp_path / "merged").glob("*.safetensors")]


def test_command_merges_the_output_of_dpo(tiny_model: Path, tmp_path: Path) -> None:
    output(str(tiny_model), tmp_path / "model")
    assert main([str(tmp_path / "model"), "--out", str(tmp_path / "merged")]) == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert torch.equal(logits(merged), pefts(str(tiny_model), tmp_path / "model" / "adapter", torch.float32))


def test_command_writes_to_s3(tiny_model: Path, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(s3, monkeypatch)
    client(s3).create_bucket(Bucket="models")
    output(str(tiny_model), tmp_path / "model")
    for status in (0, 2):  # the second time it is in the way
        assert main([str(tmp_path / "model"), "--out", "s3://models/merged"]) == status
    names = {found["Key"] for found in client(s3).list_objects_v2(Bucket="models")["Contents"]}
    assert {"merged/model.safetensors", "merged/config.json", "merged/tokenizer.json"} <= names


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("stage", "is the output of rip; give that of dpo"),
        ("adapter", "holds no adapter/"),
        ("out", "is not empty; choose another folder"),
        ("scheme", "gs://bucket/x: unknown scheme"),
    ],
)
def test_what_cannot_be_merged_is_refused_in_one_line(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: str, said: str
) -> None:
    described = output(str(tiny_model), tmp_path / "model")
    out = str(tmp_path / "merged")
    if spoil == "stage":
        replace(described, stage="rip").save(tmp_path / "model")
    elif spoil == "adapter":
        (tmp_path / "model" / "adapter").rename(tmp_path / "elsewhere")
    elif spoil == "out":
        out = str(tmp_path)
    else:
        out = "gs://bucket/x"
    assert main([str(tmp_path / "model"), "--out", out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.slow
def test_embedded_base_is_merged(tmp_path: Path) -> None:
    base = str(embedded.folder())
    made = adapter(base, tmp_path)
    merge(ModelConfig(), made, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert torch.equal(logits(merged), pefts(base, made, torch.float32))
    written = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert written["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in written

"""How models are found and loaded: early what is cheap, weights when they are needed."""

import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from rlhi.config import EngineConfig, ModelConfig, SamplingConfig, digest
from rlhi.engine import Request, choose, generate, open_engine
from rlhi.engine.models import load_policy
from rlhi.engine.transformers import TransformersEngine
from rlhi.errors import InputError
from tests.rows import messages

GREEDY = SamplingConfig(temperature=0, max_tokens=4)
REQUESTS = [Request("r0", messages("Hi.")), Request("r1", messages("A fruit?"), "- short")]
COMMIT, LATER = "a" * 40, "b" * 40


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a hub that cannot be reached, with the model ``me/tiny`` at one commit."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached = tmp_path / "models--me--tiny"
    shutil.copytree(tiny_model, cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    return cached


def spoil(weights: Path) -> None:
    """Other bytes, and nothing that shows from outside."""
    before = weights.stat()
    weights.write_bytes(b"\xff" * before.st_size)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_weights_are_not_read_where_every_reply_is_stored(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    config = EngineConfig(model=ModelConfig(id=str(folder)))
    engine = open_engine(config)
    replies, scores = generate(engine, REQUESTS, GREEDY, 1, 0), choose(engine, REQUESTS, ["[A]", "[B]"])
    spoil(folder / "model.safetensors")
    again = open_engine(config)
    assert again.count_tokens(REQUESTS[0]) == engine.count_tokens(REQUESTS[0])
    assert generate(again, REQUESTS, GREEDY, 1, 0) == replies
    assert choose(again, REQUESTS, ["[A]", "[B]"]) == scores
    with pytest.raises(InputError, match=r"model\.id=.*: cannot be loaded: ") as caught:
        choose(again, REQUESTS, ["something else"])
    assert "\n" not in str(caught.value)


def test_identity_is_that_of_the_model_when_it_is_loaded(folder: Path) -> None:
    """By this very string replies are stored: another one, and all of them are asked for again."""
    engine = TransformersEngine(load_policy(ModelConfig(id=str(folder))), 8)
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    weights = digest("\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in files))
    identity, model = engine.identity, engine.policy.model
    template = engine.policy.renderer.template_hash
    assert identity == f"transformers {weights} {template} system {model.dtype} {model.device.type}"


def test_folder_without_weights_is_refused_before_anything_is_asked(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"cannot be loaded: .* holds no weights"):
        load_policy(ModelConfig(id=str(folder)))


def test_model_of_a_hub_is_named_and_loaded_by_its_commit(hub: Path) -> None:
    policy = load_policy(ModelConfig(id="me/tiny"))
    assert policy.weights == f"me/tiny@{COMMIT}"
    (hub / "refs" / "main").write_text(LATER)  # somebody pushes while the stage looks into the store
    assert policy.model.dtype == policy.dtype


def test_model_of_a_hub_can_be_pinned_in_its_address(hub: Path) -> None:
    (hub / "refs" / "main").write_text(LATER)
    policy = load_policy(ModelConfig(id=f"hf://me/tiny@{COMMIT}"))
    assert policy.weights == f"me/tiny@{COMMIT}"
    assert policy.model.dtype == policy.dtype


@pytest.mark.parametrize("name", ["me/none", "hf://me/none", f"hf://me/tiny@{LATER}"])
def test_model_that_a_hub_does_not_have_is_one_line(hub: Path, name: str) -> None:
    assert hub.exists()
    with pytest.raises(InputError, match=rf"model\.id='{name}': cannot be loaded: ") as caught:
        load_policy(ModelConfig(id=name))
    assert "\n" not in str(caught.value)

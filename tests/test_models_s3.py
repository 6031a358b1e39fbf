"""Models on S3 and by a pinned address: fetched once, whole, and known by what is there."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlhi.check import probes
from rlhi.cli import main
from rlhi.config import EngineConfig, ModelConfig, SamplingConfig, as_json
from rlhi.engine import Request, generate, open_engine
from rlhi.engine.models import load_policy
from rlhi.engine.places import pinned, place_of
from rlhi.engine.s3 import bucket as buckets
from rlhi.engine.s3 import files
from rlhi.errors import InputError
from tests.dpo_runs import config_of, rows, weights, written
from tests.rewards import CHATML, make_classifier
from tests.rows import messages
from tests.s3_server import Proxy, client, use

GREEDY = SamplingConfig(temperature=0, max_tokens=4)
REQUESTS = [Request("r0", messages("Hi.")), Request("r1", messages("A fruit?"), "- short")]
WEIGHTS = "model.safetensors"


@pytest.fixture
def uri(tiny_model: Path, bucket: str, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny model on the server; what is fetched goes to the test's own folder."""
    monkeypatch.setenv("RLHI_CACHE", str(tmp_path / "cache"))
    upload(s3, tiny_model, f"{bucket}/tiny")
    return f"{bucket}/tiny"


@pytest.fixture
def proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(buckets, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(buckets, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(files, "PART", 50_000)
    with Proxy(s3) as proxy:
        use(proxy.url, monkeypatch)
        yield proxy


def upload(endpoint: str, folder: Path, uri: str) -> None:
    name, _, prefix = uri.removeprefix("s3://").partition("/")
    for path in folder.iterdir():
        client(endpoint).put_object(Bucket=name, Key=f"{prefix}/{path.name}", Body=path.read_bytes())


def fetched(proxy: Proxy, name: str = "") -> list[str]:
    return [path for method, path in proxy.seen if method == "GET" and path.endswith(name) and "/tiny/" in path]


def test_model_on_s3_answers_as_the_folder_does(uri: str, tiny_model: Path) -> None:
    engine = open_engine(EngineConfig(model=ModelConfig(id=uri)))
    here = open_engine(EngineConfig(model=ModelConfig(id=str(tiny_model))))
    assert generate(engine, REQUESTS, GREEDY, 1, 0) == generate(here, REQUESTS, GREEDY, 1, 0)


def test_model_is_fetched_once(uri: str, proxy: Proxy) -> None:
    for _ in range(2):
        assert load_policy(ModelConfig(id=uri)).model.config.hidden_size == 32
    sizes = buckets.Bucket(uri).sizes("")
    assert len(fetched(proxy)) == sum(-(-size // 50_000) for size in sizes.values())


def test_weights_are_not_fetched_until_somebody_loads_them(uri: str, proxy: Proxy) -> None:
    policy = load_policy(ModelConfig(id=uri))
    assert policy.renderer.prompt(messages("Hi."), None)
    assert not fetched(proxy, WEIGHTS)
    assert policy.model.config.hidden_size == 32
    assert fetched(proxy, WEIGHTS)


def test_fetch_that_fails_in_between_comes_out_whole(uri: str, tiny_model: Path, proxy: Proxy) -> None:
    turns = iter(range(10_000))
    proxy.fault = lambda method, path: ("503", "drop", "cut", None)[next(turns) % 4]
    place = place_of(uri)
    place.fetch()
    for path in tiny_model.iterdir():
        assert (Path(place.name) / path.name).read_bytes() == path.read_bytes()


def test_fetch_that_was_killed_goes_on_at_the_file_where_it_was(uri: str, proxy: Proxy) -> None:
    place = place_of(uri)
    (Path(place.name) / f".{WEIGHTS}.partial").write_bytes(b"half")
    (Path(place.name) / "config.json").unlink()
    before = len(fetched(proxy, "tokenizer.json"))
    again = place_of(uri)
    again.fetch()
    assert len(fetched(proxy, "tokenizer.json")) == before
    assert load_policy(ModelConfig(id=uri)).model.config.hidden_size == 32
    assert not [path for path in Path(place.name).iterdir() if path.name.endswith(".partial")]


def test_other_weights_behind_the_same_address_are_another_model(uri: str, s3: str, tmp_path: Path) -> None:
    from tests.conftest import write_model

    before = load_policy(ModelConfig(id=uri))
    upload(s3, write_model(tmp_path / "wide", 64), uri)
    after = load_policy(ModelConfig(id=uri))
    assert before.weights != after.weights
    assert after.model.config.hidden_size == 64
    with pytest.raises(InputError, match=f"{WEIGHTS}: has changed while it was read .*start again"):
        assert before.model


def test_pinned_model_is_refused_once_its_files_are_others(uri: str, s3: str) -> None:
    revision = place_of(uri).weights.removeprefix("s3 ")
    assert place_of(f"{uri}@{revision}").weights == place_of(uri, revision).weights
    name, _, key = f"{uri}/config.json".removeprefix("s3://").partition("/")
    client(s3).put_object(Bucket=name, Key=key, Body=b"{}")
    with pytest.raises(InputError, match=rf"is revision \w+, not {revision}: .* give {uri}@\w+"):
        place_of(f"{uri}@{revision}")


@pytest.mark.parametrize(
    ("left_out", "said"), [("config.json", "holds no config.json; give the folder"), (WEIGHTS, "holds no weights")]
)
def test_folder_on_s3_that_is_no_model_is_refused(uri: str, s3: str, left_out: str, said: str) -> None:
    name, _, key = f"{uri}/{left_out}".removeprefix("s3://").partition("/")
    client(s3).delete_object(Bucket=name, Key=key)
    with pytest.raises(InputError, match=f"{uri}: {said}"):
        load_policy(ModelConfig(id=uri))
    with pytest.raises(InputError, match=f"{uri}: {said}"):
        probes.model(uri)


def test_model_above_the_right_folder_is_pointed_at(uri: str) -> None:
    with pytest.raises(InputError, match=r"there is tiny/config\.json"):
        place_of(uri.removesuffix("/tiny"))


def test_disk_without_room_is_said_before_anything_is_fetched(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(InputError, match=r"needs \d+ MB, and .* has 0 MB free; set RLHI_CACHE to a folder on a larger"):
        place_of(uri)


def test_reward_model_on_s3_brings_its_contract(
    tiny_model: Path, bucket: str, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhi.reward.classifier import load_classifier

    monkeypatch.setenv("RLHI_CACHE", str(tmp_path / "cache"))
    upload(s3, make_classifier(tmp_path / "reward", tiny_model), f"{bucket}/reward")
    model = load_classifier(ModelConfig(id=f"{bucket}/reward"), None, "packed", knows_persona=True)
    assert model.scale == CHATML.scale


@pytest.mark.slow
def test_training_starts_from_a_model_on_s3(uri: str, tiny_model: Path, tmp_path: Path) -> None:
    pairs = written(tmp_path / "pairs", rows(2))
    trained = {}
    for name, model in {"s3": uri, "here": str(tiny_model)}.items():
        config = as_json(replace(config_of(Path("x")), model=ModelConfig(id=model), epochs=1))
        assert main(["dpo", "--pairs", str(pairs), "--model", str(tmp_path / name), "--config", config]) == 0
        trained[name] = weights(tmp_path / name)
    assert trained["s3"].keys() == trained["here"].keys()
    assert all(value.equal(trained["here"][name]) for name, value in trained["s3"].items())
    adapter = json.loads((tmp_path / "s3" / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == uri


def test_address_of_a_hub_is_its_name_and_its_revision() -> None:
    assert pinned("hf://Qwen/Qwen3-8B@abc", None) == ("Qwen/Qwen3-8B", "abc")
    assert pinned("hf://Qwen/Qwen3-8B", "abc") == ("Qwen/Qwen3-8B", "abc")
    assert pinned("Qwen/Qwen3-8B", None) == ("Qwen/Qwen3-8B", None)
    with pytest.raises(InputError, match=r"is no model of a hub; give hf://ORG/NAME@REVISION"):
        pinned("hf://Qwen3-8B", None)
    with pytest.raises(InputError, match="'def' is another; give one of them"):
        pinned("hf://Qwen/Qwen3-8B@abc", "def")

"""The chart's arguments of `vllm serve`, taken by the real vLLM."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart import container, named, server, servers
from tests.conftest import VLLM, write_model
from tests.helm import needs_helm, render
from tests.rewards import make_classifier
from tests.vllm_metrics import SERIES
from tests.vllm_server import vllm_server

pytestmark = [*VLLM, needs_helm]
KEY = "the-key"


def flags(name: str, **more: object) -> list[str]:
    """What the chart's server of that name is started with, after its model, name and port."""
    words: list[str] = container(named(render(servers(**{name: server(**more)})), "Deployment", f"rlhi-vllm-{name}"))[
        "args"
    ]
    return words[words.index("8000") + 1 :]


def ask(url: str, body: dict[str, Any] | None = None, key: str = "") -> bytes:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        raw: bytes = answer.read()
        return raw


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that is started as the chart starts the policy, with a key."""
    model = write_model(tmp_path_factory.mktemp("model"), 128)  # the narrowest that vLLM computes on a CPU
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_API_KEY", KEY)  # where the chart puts the Secret's
        log = tmp_path_factory.mktemp("policy") / "log.txt"
        with vllm_server(str(model), log, *flags("policy", args=["--max-model-len", "512"])) as url:
            yield url


def test_server_answers_who_has_the_key_and_shows_its_health_to_all(policy: str) -> None:
    assert json.loads(ask(f"{policy}/models", key=KEY))["data"][0]["max_model_len"] == 512
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(f"{policy}/models")
    assert ask(f"{policy.removesuffix('/v1')}/health") == b""


def test_server_exports_the_metrics_that_the_dashboard_shows(policy: str) -> None:
    ask(f"{policy}/completions", {"model": "tiny", "prompt": "the user", "max_tokens": 4}, KEY)
    lines = ask(f"{policy.removesuffix('/v1')}/metrics").decode().splitlines()
    names = {line.split("{")[0] for line in lines if line.startswith("vllm:")}
    assert SERIES - names == set()


def test_reward_server_gives_scores_without_a_sigmoid(tiny_model: Path, tmp_path: Path) -> None:
    model = make_classifier(tmp_path / "reward", tiny_model, hidden_size=128)
    with vllm_server(str(model), tmp_path / "log.txt", *flags("reward")) as url:
        address = f"{url.removesuffix('/v1')}/classify"
        asked = {"model": "tiny", "input": [[5, 6, 7], [9, 10], [40, 41, 42, 43]]}
        plain, raw = (
            [row["probs"] for row in json.loads(ask(address, asked | more))["data"]]
            for more in ({}, {"use_activation": False})
        )
    assert plain == raw
    assert not all(0 <= one <= 1 for (one,) in raw)

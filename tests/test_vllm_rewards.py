"""Rewards by vLLM's own server, with the same tiny classifier as in process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhi.config import EngineConfig, ModelConfig, ServerConfig
from rlhi.errors import InputError
from rlhi.reward.model import Unscored
from rlhi.reward.stage import RewardConfig, open_reward
from tests.conftest import VLLM
from tests.rewards import make_classifier
from tests.rows import answer, candidates
from tests.vllm_server import vllm_server

pytestmark = VLLM
ROWS = [
    candidates("one", answer("Fig."), answer(" "), answer("A fig is a fruit.")),
    candidates("two", answer("y"), answer("No. " * 30), persona="- long"),
]


@pytest.fixture(scope="module")
def tiny_reward(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("reward"), tiny_model, hidden_size=128)


@pytest.fixture(scope="module")
def server(tiny_reward: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of vLLM's own server with the classifier."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with vllm_server(str(tiny_reward), log, "--runner", "pooling") as url:
        yield url


def config(tiny_reward: Path, url: str, **extra: object) -> RewardConfig:
    served = ServerConfig(url=url, tokenizer=str(tiny_reward), extra=extra)
    return RewardConfig(kind="server", engine=EngineConfig(model=ModelConfig(id="tiny"), server=served))


def test_vllm_scores_as_the_classifier_in_process_does(tiny_reward: Path, server: str) -> None:
    here = open_reward(RewardConfig(kind="classifier", model=ModelConfig(id=str(tiny_reward)))).score(ROWS)
    for found, expected in zip(open_reward(config(tiny_reward, server)).score(ROWS), here, strict=True):
        assert found == [one if isinstance(one, Unscored) else pytest.approx(one, abs=1e-3) for one in expected]


def test_vllm_with_its_sigmoid_on_is_refused(tiny_reward: Path, server: str) -> None:
    with pytest.raises(InputError, match=r"lie in \[0, 1\].*as behind a sigmoid"):
        open_reward(config(tiny_reward, server, use_activation=True))

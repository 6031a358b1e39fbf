from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlhi.config import EngineConfig, ModelConfig, ServerConfig
from rlhi.engine import tally
from rlhi.errors import InputError
from rlhi.reward.model import Unscored
from rlhi.reward.server import ServedClassifier, served_classifier
from rlhi.reward.stage import RewardConfig, open_reward
from tests.chat_server import ChatServer, ClassifyServer, Fault
from tests.rewards import make_classifier
from tests.rows import answer, candidates

KEY = "sk-secret-of-the-rewards"
ROWS = [
    candidates("one", answer("Fig."), answer(" "), answer("A fig is a fruit.")),
    candidates("two", answer("y"), answer("No. " * 30), persona="- long"),
]


@pytest.fixture(scope="module")
def tiny_reward(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("reward"), tiny_model)


@pytest.fixture(scope="module")
def logits(tiny_reward: Path) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(str(tiny_reward), dtype=torch.float32).eval()

    def of(ids: list[int]) -> list[float | None]:
        with torch.inference_mode():
            return [float(model(torch.tensor([ids])).logits)]

    return of


def engine(tiny_reward: Path, server: ChatServer, **settings: Any) -> EngineConfig:
    server_config = ServerConfig(url=server.url, tokenizer=str(tiny_reward), **settings)
    return EngineConfig(model=ModelConfig(id="the-reward-model"), server=server_config)


def config(tiny_reward: Path, server: ChatServer, **settings: Any) -> RewardConfig:
    return RewardConfig(kind="server", engine=engine(tiny_reward, server, **settings))


def in_process(tiny_reward: Path) -> list[list[Any]]:
    return open_reward(RewardConfig(kind="classifier", model=ModelConfig(id=str(tiny_reward)))).score(ROWS)


def test_server_scores_as_the_classifier_in_process_does(
    tiny_reward: Path, logits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ClassifyServer(logits) as server:
        model = open_reward(config(tiny_reward, server))
        for found, expected in zip(model.score(ROWS), in_process(tiny_reward), strict=True):
            assert found == [one if isinstance(one, Unscored) else pytest.approx(one, abs=1e-4) for one in expected]
    assert {body["model"] for body in server.bodies} == {"the-reward-model"}
    assert not any(body["use_activation"] for body in server.bodies)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert model.scale == "tiny"


def test_server_that_stumbles_gives_the_same_scores(tiny_reward: Path, logits: Any) -> None:
    with ClassifyServer(logits, fault=lambda number: ("500", "garble", None)[number % 3]) as server:
        reader = served_classifier(engine(tiny_reward, server), None, knows_persona=True).reader
        model = ServedClassifier(engine(tiny_reward, server), reader, first_wait=0.01)
        for found, expected in zip(model.score(ROWS), in_process(tiny_reward), strict=True):
            assert found == [one if isinstance(one, Unscored) else pytest.approx(one, abs=1e-4) for one in expected]


def test_row_that_the_server_does_not_answer_has_no_reward_and_is_asked_again_another_time(
    tiny_reward: Path, logits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    expected = in_process(tiny_reward)
    with ClassifyServer(logits) as server:
        reader = served_classifier(engine(tiny_reward, server), None, knows_persona=True).reader
    poison = reader.read(ROWS[1])

    def broken(number: int) -> Fault | None:
        return "500" if bad.bodies[number]["input"] == poison else None

    with ClassifyServer(logits, fault=broken) as bad:
        for _ in range(2):  # the second time there is nothing else to ask for
            first, second = open_reward(config(tiny_reward, bad, deadline=2.0)).score(ROWS)
            assert first == [one if isinstance(one, Unscored) else pytest.approx(one, abs=1e-4) for one in expected[0]]
            assert second == [Unscored("unanswered")] * 2
    assert [body["input"] for body in bad.bodies].count(reader.read(ROWS[0])[::2]) == 1
    with ClassifyServer(logits) as mended:
        _, second = open_reward(config(tiny_reward, mended)).score(ROWS)
    assert second == [pytest.approx(one, abs=1e-4) for one in expected[1]]


def test_server_that_keeps_its_sigmoid_is_refused(tiny_reward: Path, logits: Any) -> None:
    with ClassifyServer(logits) as server, pytest.raises(InputError, match=r"lie in \[0, 1\].*as behind a sigmoid"):
        open_reward(config(tiny_reward, server, extra={"use_activation": True}))


def test_server_with_two_labels_is_refused_and_a_null_score_is_null(tiny_reward: Path) -> None:
    with ClassifyServer(lambda ids: [0.3, 0.7]) as server, pytest.raises(InputError, match="its model has 2 labels"):
        open_reward(config(tiny_reward, server))
    with ClassifyServer(lambda ids: [None]) as server:
        served = served_classifier(engine(tiny_reward, server), None, knows_persona=True)
        assert served.score(ROWS)[1] == [Unscored("not_a_number")] * 2


def test_setting_that_is_missing_is_named_before_anything_is_asked(tiny_reward: Path) -> None:
    given = RewardConfig(kind="server", engine=EngineConfig(model=ModelConfig(id="rm")))
    with pytest.raises(InputError, match=r"reward.engine.server.tokenizer: is not set; give the Hugging Face id"):
        open_reward(given)
    unnamed = replace(given, engine=EngineConfig(server=ServerConfig(tokenizer=str(tiny_reward))))
    with pytest.raises(InputError, match="give the name that the server has for its model"):
        open_reward(unnamed)


def test_server_is_not_asked_again_for_what_is_stored(
    tiny_reward: Path, logits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    with ClassifyServer(logits) as server:
        first = open_reward(config(tiny_reward, server)).score(ROWS)
        since = tally.since()
        assert open_reward(config(tiny_reward, server)).score(ROWS) == first
        counts = since()
    assert (counts["scored"], counts["scores_stored"]) == (0, 2)

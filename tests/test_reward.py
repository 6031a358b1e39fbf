from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from rlhi.config import ModelConfig
from rlhi.engine.models import Policy, load_policy
from rlhi.records import Candidates, Dropped
from rlhi.reward.model import Score, Unscored
from rlhi.reward.persona_likelihood import PersonaLikelihood
from rlhi.reward.stage import RewardConfig, open_reward, score
from rlhi.trees import Layout
from tests.rewards import FakeReward
from tests.rows import answer, candidates, messages


def length(row: Candidates, text: str) -> Score:
    return Unscored("unreadable", "Who can say?") if text == "?" else float(len(text))


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return load_policy(ModelConfig(id=str(tiny_model), max_prompt_tokens=400))


def plain_logprob(policy: Policy, prompt: list[int], ids: list[int]) -> float:
    with torch.inference_mode():
        logits = policy.model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) + i - 1, token]) for i, token in enumerate(ids))


def test_rewards_stand_beside_their_answers() -> None:
    kept, dropped, nulls = score([candidates("c", answer("abc"), answer("a", 99.0), answer("?"))], FakeReward(length))
    assert [each.reward for each in kept[0].answers] == [3.0, 1.0, None]
    assert dropped == []
    assert nulls == {"c/2": Unscored("unreadable", "Who can say?")}


def test_row_with_fewer_than_two_scored_answers_is_dropped() -> None:
    rows = [candidates("c", answer("abc"), answer("?", 1.0)), candidates("d", answer("ab"), answer("c"))]
    kept, dropped, _ = score(rows, FakeReward(length))
    assert [row.id for row in kept] == ["d"]
    assert dropped == [Dropped("c", "unscored")]


def test_row_with_one_answer_is_dropped_before_it_is_scored() -> None:
    model = FakeReward(length)
    kept, dropped, _ = score([candidates("c", answer("abc")), candidates("d", answer("ab"), answer("c"))], model)
    assert [row.id for row in kept] == model.seen == ["d"]
    assert dropped == [Dropped("c", "too_few_answers")]


@pytest.mark.parametrize("layout", get_args(Layout))
def test_reward_is_the_gain_per_token_from_knowing_the_persona(policy: Policy, layout: Layout) -> None:
    row = candidates("c", answer("Fig."), answer("A fruit is a fig."))
    (rewards,) = PersonaLikelihood(policy, layout, knows_persona=True).score([row])
    renderer = policy.renderer
    for each, reward in zip(row.answers, rewards, strict=True):
        ids = renderer.answer(each.text)
        knowing, plain = (
            plain_logprob(policy, renderer.prompt(row.context, persona), ids) for persona in (row.persona, None)
        )
        assert reward == pytest.approx((knowing - plain) / len(ids), abs=1e-4)


def test_user_agnostic_reward_does_not_see_the_persona(policy: Policy) -> None:
    model = PersonaLikelihood(policy, "packed", knows_persona=False)
    row = candidates("c", answer("Fig."), answer("Date."))
    (rewards,) = model.score([row])
    assert model.score([replace(row, persona="- long")]) == [pytest.approx(rewards)]
    assert model.score([replace(row, persona=None)]) == [pytest.approx(rewards)]
    ids = policy.renderer.answer("Fig.")
    prompt = policy.renderer.prompt(row.context)
    assert rewards[0] == pytest.approx(plain_logprob(policy, prompt, ids) / len(ids), abs=1e-4)


def test_score_depends_neither_on_the_other_rows_nor_on_the_layout(policy: Policy) -> None:
    rows = [candidates(f"c{i}", answer("Fig."), answer("A date. " * i), persona=f"- {i}") for i in range(1, 5)]
    together = PersonaLikelihood(policy, "packed", knows_persona=True).score(rows)
    alone = [PersonaLikelihood(policy, "padded", knows_persona=True).score([row])[0] for row in rows]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_what_cannot_be_scored_is_null(policy: Policy) -> None:
    model = PersonaLikelihood(policy, "packed", knows_persona=True)
    rows = [
        candidates("empty", answer(" "), answer("Fig.")),
        candidates("no persona", answer("Fig."), answer("Date."), persona=None),
        candidates("too long", answer("Fig."), answer("Date."), persona="- short " * 200),
    ]
    empty, *others = model.score(rows)
    assert empty[0] == Unscored("empty_answer")
    assert isinstance(empty[1], float)
    assert others == [[Unscored("no_persona")] * 2, [Unscored("too_long")] * 2]
    assert model.score([]) == []


def test_old_turns_go_before_a_prompt_is_too_long(policy: Policy) -> None:
    model = PersonaLikelihood(policy, "packed", knows_persona=True)
    row = candidates("c", answer("Fig."), answer("Date."))
    old = messages("Tell me of figs. " * 20, "Figs are sweet. " * 20)
    (rewards,) = model.score([replace(row, context=(*old, *row.context))])
    assert rewards == model.score([row])[0]


def test_config_chooses_what_the_reward_means(tiny_model: Path) -> None:
    config = RewardConfig(model=ModelConfig(id=str(tiny_model)))
    assert "gain in log-probability per token from knowing the persona" in open_reward(config).note
    assert "without the persona" in open_reward(replace(config, persona="off")).note
    assert "stands in for a reward model" in open_reward(config).note

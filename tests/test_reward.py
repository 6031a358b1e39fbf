from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlhi.config import ModelConfig
from rlhi.engine.models import Policy, load_policy
from rlhi.records import Candidates, Dropped
from rlhi.reward.persona_likelihood import PersonaLikelihood
from rlhi.reward.stage import RewardConfig, open_reward, score
from tests.rows import answer, candidates


class Lengths:
    """Rewards the length of an answer; cannot score one that says so."""

    note = "length"

    def score(self, rows: Sequence[Candidates]) -> list[list[float | None]]:
        return [[None if each.text == "?" else float(len(each.text)) for each in row.answers] for row in rows]


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return load_policy(ModelConfig(id=str(tiny_model), max_prompt_tokens=400))


def plain_logprob(policy: Policy, prompt: list[int], ids: list[int]) -> float:
    with torch.inference_mode():
        logits = policy.model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) + i - 1, token]) for i, token in enumerate(ids))


def test_rewards_stand_beside_their_answers() -> None:
    kept, dropped = score([candidates("c", answer("abc"), answer("a", 99.0), answer("?"))], Lengths())
    assert [each.reward for each in kept[0].answers] == [3.0, 1.0, None]
    assert dropped == []


def test_row_with_fewer_than_two_scored_answers_is_dropped() -> None:
    rows = [candidates("c", answer("abc"), answer("?", 1.0)), candidates("d", answer("ab"), answer("c"))]
    kept, dropped = score(rows, Lengths())
    assert [row.id for row in kept] == ["d"]
    assert dropped == [Dropped("c", "unscored")]


def test_reward_is_the_gain_per_token_from_knowing_the_persona(policy: Policy) -> None:
    row = candidates("c", answer("Fig."), answer("A fruit is a fig."))
    (rewards,) = PersonaLikelihood(policy, 4, knows_persona=True).score([row])
    renderer = policy.renderer
    for each, reward in zip(row.answers, rewards, strict=True):
        ids = renderer.answer(each.text)
        knowing, plain = (
            plain_logprob(policy, renderer.prompt(row.context, persona), ids) for persona in (row.persona, None)
        )
        assert reward == pytest.approx((knowing - plain) / len(ids), abs=1e-4)


def test_user_agnostic_reward_does_not_see_the_persona(policy: Policy) -> None:
    model = PersonaLikelihood(policy, 4, knows_persona=False)
    row = candidates("c", answer("Fig."), answer("Date."))
    (rewards,) = model.score([row])
    assert model.score([replace(row, persona="- long")]) == [pytest.approx(rewards)]
    assert model.score([replace(row, persona=None)]) == [pytest.approx(rewards)]
    ids = policy.renderer.answer("Fig.")
    prompt = policy.renderer.prompt(row.context)
    assert rewards[0] == pytest.approx(plain_logprob(policy, prompt, ids) / len(ids), abs=1e-4)


def test_score_depends_neither_on_the_other_rows_nor_on_the_batch(policy: Policy) -> None:
    rows = [candidates(f"c{i}", answer("Fig."), answer("A date. " * i), persona=f"- {i}") for i in range(1, 5)]
    together = PersonaLikelihood(policy, 16, knows_persona=True).score(rows)
    alone = [PersonaLikelihood(policy, 1, knows_persona=True).score([row])[0] for row in rows]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_what_cannot_be_scored_is_null(policy: Policy) -> None:
    model = PersonaLikelihood(policy, 4, knows_persona=True)
    rows = [
        candidates("empty", answer(" "), answer("Fig.")),
        candidates("no persona", answer("Fig."), answer("Date."), persona=None),
        candidates("too long", answer("Fig."), answer("Date."), persona="- short " * 200),
    ]
    empty, *others = model.score(rows)
    assert empty[0] is None
    assert empty[1] is not None
    assert others == [[None, None], [None, None]]
    assert model.score([]) == []


def test_config_chooses_what_the_reward_means(tiny_model: Path) -> None:
    config = RewardConfig(model=ModelConfig(id=str(tiny_model)))
    assert "gain in log-probability per token from knowing the persona" in open_reward(config).note
    assert "without the persona" in open_reward(replace(config, persona="off")).note
    assert "stands in for a reward model" in open_reward(config).note

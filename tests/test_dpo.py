import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlhi.artifacts import Input, Output
from rlhi.config import ModelConfig
from rlhi.dpo.config import DpoConfig
from rlhi.dpo.stage import read_history, run
from rlhi.dpo.tokens import TokenizedPair, tokenize
from rlhi.dpo.work import work
from rlhi.engine.models import load_policy
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.manifest import Manifest
from rlhi.records import Message, Pair
from rlhi.trees import Tree, branch_logprobs
from tests.conftest import TEMPLATE
from tests.dpo_runs import history, job_of, rows, same, weights, written
from tests.rows import pair, reasons

FAST = DpoConfig(learning_rate=1e-2, batch_size=2, epochs=8, lora_rank=4, max_tokens=400, validation_share=0)


class Words:
    """A renderer with a token for each word."""

    def prompt(self, messages: tuple[Message, ...], persona: str | None = None) -> list[int]:
        return [1] * sum(len(message.content.split()) for message in messages) + [2] * (persona is not None)

    def answer(self, text: str) -> list[int]:
        return [3] * len(text.split()) + [0]

    def whole(self, messages: tuple[Message, ...], persona: str | None, answer: str) -> list[int]:
        return self.prompt(messages, persona) + self.answer(answer)


@pytest.fixture
def config(tiny_model: Path) -> DpoConfig:
    return replace(FAST, model=ModelConfig(id=str(tiny_model)))


def train(pairs: list[Pair], folder: Path, config: DpoConfig) -> Manifest:
    given = Input(written(folder / "pairs", pairs), Pair)
    return execute(Call("dpo", run, {"pairs": given}, {}, "model", Output(folder / "model", Pair), config))


def test_prompt_and_answers_are_tokenized_with_the_persona() -> None:
    _, tokens, _ = tokenize([pair("c", "Fig.", "A ripe fig.", "Name a fruit.")], Words(), 64)  # type: ignore[arg-type]
    assert tokens == [TokenizedPair("c", [1, 1, 1, 2], [3, 0], [3, 3, 3, 0])]


def test_pair_whose_longer_answer_does_not_fit_is_dropped() -> None:
    given = [pair("fits", "one", "one two"), pair("chosen", "one two three", "one"), pair("rejected", "one", "a b c d")]
    kept, tokens, dropped = tokenize(given, Words(), 7)  # type: ignore[arg-type]
    assert [row.id for row in kept] == ["fits"]
    assert tokens[0].longest == 7
    assert reasons(dropped) == {"chosen": "pair_too_long", "rejected": "pair_too_long"}


def test_pair_that_nothing_can_be_learned_from_is_dropped_with_the_reason() -> None:
    given = [
        replace(pair("nobody"), persona=None),
        pair("nothing", chosen=" \n"),
        pair("nothing either", rejected=""),
        pair("same", "Fig.", "Fig."),
        pair("fine"),
    ]
    kept, tokens, dropped = tokenize(given, Words(), 64)  # type: ignore[arg-type]
    assert [row.id for row in kept] == [row.id for row in tokens] == ["fine"]
    assert reasons(dropped) == {
        "nobody": "no_persona",
        "nothing": "empty_answer",
        "nothing either": "empty_answer",
        "same": "equal_answers",
    }


def test_pair_without_a_persona_is_trained_on_where_none_is_needed() -> None:
    given = [replace(pair("c", "Fig.", "A ripe fig.", "Name a fruit."), persona=None)]
    _, tokens, dropped = tokenize(given, Words(), 64, needs_persona=False)  # type: ignore[arg-type]
    assert dropped == []
    assert tokens == [TokenizedPair("c", [1, 1, 1], [3, 0], [3, 3, 3, 0])]


def test_pair_that_the_template_writes_otherwise_is_dropped(tiny_model: Path) -> None:
    renderer = load_policy(ModelConfig(id=str(tiny_model))).renderer
    given = [pair("chosen", "  Fig."), pair("rejected", rejected="A fig. "), pair("fine")]
    assert tokenize(given, renderer, 400)[2] == []
    renderer.tokenizer.chat_template = TEMPLATE.replace("message['content']", "message['content'] | trim")
    renderer.check()
    kept, _, dropped = tokenize(given, renderer, 400)
    assert [row.id for row in kept] == ["fine"]
    assert reasons(dropped) == {"chosen": "prompt_not_a_prefix", "rejected": "prompt_not_a_prefix"}


def test_tokens_are_those_that_serving_sees(tiny_model: Path) -> None:
    renderer = load_policy(ModelConfig(id=str(tiny_model))).renderer
    row = pair("c")
    _, (tokens,), _ = tokenize([row], renderer, 400)
    assert tokens.prompt_ids == renderer.prompt(row.context, row.persona)
    whole = renderer.encode(renderer.text(row.context, row.persona, answer=row.chosen))
    assert whole[: len(tokens.prompt_ids) + len(tokens.chosen_ids)] == tokens.prompt_ids + tokens.chosen_ids


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"packing": "off", "batch_size": 5, "micro_batch_size": 2},
            r"dpo\.batch_size=5 is no multiple of dpo\.micro_batch_size=2",
        ),
        ({"loss_type": ("sigmoid", "sft"), "loss_weights": (1.0,)}, "1 weights for 2 losses"),
        ({"loss_type": ("robust",)}, r"dpo\.loss_type=robust: needs dpo\.label_smoothing"),
        ({"label_smoothing": 0.1}, r"dpo\.label_smoothing=0\.1: is for robust and exo_pair only"),
        ({"merge": True, "lora_rank": None}, r"dpo\.merge: there is no adapter"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DpoConfig(**settings).check()  # type: ignore[arg-type]


def test_nothing_to_train_on_is_refused_with_the_reasons(tmp_path: Path, config: DpoConfig) -> None:
    pairs = [
        pair("long", said="Name a fruit. " * 40),
        replace(pair("nobody"), persona=None),
        pair("same", "Fig.", "Fig."),
    ]
    said = (
        r"none of 3 pairs can be trained on \(pair_too_long 1, no_persona 1, equal_answers 1\); see dpo\.max_tokens=64"
    )
    with pytest.raises(InputError, match=said):
        train(pairs, tmp_path, replace(config, max_tokens=64))
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]


@pytest.mark.parametrize("loss", ["sigmoid", "sft"])
def test_training_makes_the_chosen_answer_likelier(tmp_path: Path, config: DpoConfig, loss: str) -> None:
    pairs = [pair("a"), pair("b")]
    described = train(pairs, tmp_path, replace(config, loss_type=(loss,)))  # type: ignore[arg-type]
    folder = tmp_path / "model"

    log = read_history(folder)
    assert len(log) == 8
    assert log[-1]["loss"] < log[0]["loss"]
    assert described.metrics["loss"] == log[-1]["loss"]
    assert described.metrics["steps"] == 8
    assert Input(folder, Pair).read() == pairs

    named = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == config.model.id
    assert named["target_modules"] == sorted(named["target_modules"])

    scores = []
    for adapter in (None, folder / "adapter"):
        policy = load_policy(config.model, adapter)
        prompt = policy.renderer.prompt(pairs[0].context, pairs[0].persona)
        answers = [policy.renderer.answer(text) for text in (pairs[0].chosen, pairs[0].rejected)]
        with torch.no_grad():
            scores.append(branch_logprobs(policy.model, [Tree(prompt, answers)])[0].tolist())
    (base_chosen, base_rejected), (chosen, rejected) = scores
    if loss == "sigmoid":
        margin = config.beta * ((chosen - base_chosen) - (rejected - base_rejected))
        assert margin > 0.5
        assert described.metrics["margin"] == pytest.approx(margin, rel=0.3)
        assert described.metrics["accuracy"] == 1
        assert log[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # the adapter starts as the reference
    else:
        assert chosen > base_chosen + 1


@pytest.mark.slow
def test_one_seed_trains_the_same_adapter_and_another_another(tmp_path: Path, config: DpoConfig) -> None:
    jobs = [job_of(tmp_path / str(i), replace(config, epochs=2, seed=seed), rows()) for i, seed in enumerate((0, 0, 1))]
    for job in jobs:
        work(job)
    first, second, third = (weights(job.trained) for job in jobs)
    assert same(first, second)
    assert not same(first, third)
    assert history(jobs[0].folder) == history(jobs[1].folder) != history(jobs[2].folder)


def test_batch_holds_all_pairs_where_there_are_fewer(tmp_path: Path, config: DpoConfig) -> None:
    for batch, steps in [(4, 2), (64, 1)]:
        job = job_of(tmp_path / str(batch), replace(config, epochs=1, batch_size=batch), rows())
        work(job)
        assert [row["step"] for row in history(job.folder) if "loss" in row] == list(range(1, steps + 1))


def test_model_without_a_history_has_an_empty_one(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []

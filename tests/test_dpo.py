import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlhi.artifacts import Input, Output
from rlhi.config import ModelConfig
from rlhi.dpo.stage import DpoConfig, TokenizedPair, read_history, run, tokenize
from rlhi.engine.models import load_policy
from rlhi.engine.prefix import continuation_logprobs
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.manifest import Manifest
from rlhi.records import Message, Pair
from tests.rows import pair, reasons

FAST = DpoConfig(learning_rate=1e-2, batch_size=2, micro_batch_size=2, epochs=8, lora_rank=4, max_tokens=400)


class Words:
    """A renderer with a token for each word."""

    def prompt(self, messages: tuple[Message, ...], persona: str | None = None) -> list[int]:
        return [1] * sum(len(message.content.split()) for message in messages) + [2] * (persona is not None)

    def answer(self, text: str) -> list[int]:
        return [3] * len(text.split()) + [0]


@pytest.fixture
def config(tiny_model: Path) -> DpoConfig:
    return replace(FAST, model=ModelConfig(id=str(tiny_model)))


def train(pairs: list[Pair], folder: Path, config: DpoConfig) -> Manifest:
    def write(pairs_made: Output[Pair], config: object) -> None:
        pairs_made.write(pairs, [], len(pairs))

    given = folder / "pairs"
    if not given.exists():
        execute(Call("rip", write, {}, {}, "pairs_made", Output(given, Pair), DpoConfig()))
    output = Output(folder / f"model-{len(list(folder.iterdir()))}", Pair)
    return execute(Call("dpo", run, {"pairs": Input(given, Pair)}, {}, "model", output, config))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "adapter" / "adapter_model.safetensors")
    return found


def test_prompt_and_answers_are_tokenized_with_the_persona() -> None:
    _, tokens, _ = tokenize([pair("c", "Fig.", "A ripe fig.", "Name a fruit.")], Words(), 64)  # type: ignore[arg-type]
    assert tokens == [TokenizedPair([1, 1, 1, 2], [3, 0], [3, 3, 3, 0])]


def test_pair_whose_longer_answer_does_not_fit_is_dropped() -> None:
    rows = [pair("fits", "one", "one two"), pair("chosen", "one two three", "one"), pair("rejected", "one", "a b c d")]
    kept, tokens, dropped = tokenize(rows, Words(), 7)  # type: ignore[arg-type]
    assert [row.id for row in kept] == ["fits"]
    assert tokens[0].length == 7
    assert reasons(dropped) == {"chosen": "pair_too_long", "rejected": "pair_too_long"}


def test_tokens_are_those_that_serving_sees(tiny_model: Path) -> None:
    renderer = load_policy(ModelConfig(id=str(tiny_model))).renderer
    row = pair("c")
    _, (tokens,), _ = tokenize([row], renderer, 400)
    assert tokens.prompt_ids == renderer.prompt(row.context, row.persona)
    whole = renderer.encode(renderer.text(row.context, row.persona, answer=row.chosen))
    assert whole[: len(tokens.prompt_ids) + len(tokens.chosen_ids)] == tokens.prompt_ids + tokens.chosen_ids


def test_batch_that_micro_batches_do_not_fill_is_refused(tmp_path: Path) -> None:
    with (
        Output(tmp_path / "model", Pair) as output,
        pytest.raises(InputError, match=r"dpo\.batch_size=5 is no multiple of dpo\.micro_batch_size=2"),
    ):
        run(Input(tmp_path, Pair), output, DpoConfig(batch_size=5, micro_batch_size=2))


def test_no_pair_short_enough_is_refused(tmp_path: Path, config: DpoConfig) -> None:
    with pytest.raises(InputError, match=r"all 1 pairs exceed dpo\.max_tokens=64; raise it"):
        train([pair("c", said="Name a fruit. " * 40)], tmp_path, replace(config, max_tokens=64))
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]


@pytest.mark.parametrize("loss", ["dpo", "sft"])
def test_training_makes_the_chosen_answer_likelier(tmp_path: Path, config: DpoConfig, loss: str) -> None:
    rows = [pair("a"), pair("b")]
    described = train(rows, tmp_path, replace(config, loss=loss))  # type: ignore[arg-type]
    folder = tmp_path / "model-1"

    history = read_history(folder)
    assert len(history) == 8
    assert history[-1]["loss"] < history[0]["loss"]
    assert described.metrics["loss"] == history[-1]["loss"]
    assert described.metrics["steps"] == 8
    assert Input(folder, Pair).read() == rows

    scores = []
    for adapter in (None, folder / "adapter"):
        policy = load_policy(config.model, adapter)
        prompt = policy.renderer.prompt(rows[0].context, rows[0].persona)
        answers = [policy.renderer.answer(text) for text in (rows[0].chosen, rows[0].rejected)]
        scores.append(continuation_logprobs(policy, [prompt], [answers], 2, "scoring")[0])
    (base_chosen, base_rejected), (chosen, rejected) = scores
    if loss == "dpo":
        margin = config.beta * ((chosen - base_chosen) - (rejected - base_rejected))
        assert margin > 0.5
        assert described.metrics["margin"] == pytest.approx(margin, rel=0.3)
        assert described.metrics["accuracy"] == 1
        assert history[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # the adapter starts as the reference
    else:
        assert chosen > base_chosen + 1


def test_one_seed_trains_the_same_adapter_and_another_another(tmp_path: Path, config: DpoConfig) -> None:
    rows = [pair(f"c{i}", said=f"Name fruit {i}.") for i in range(3)]
    few = replace(config, epochs=2)
    one, again, other = (train(rows, tmp_path, replace(few, seed=seed)) for seed in (0, 0, 1))
    first, second, third = (weights(tmp_path / f"model-{i}") for i in (1, 2, 3))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)
    assert one.digest == again.digest != other.digest


def test_batch_is_accumulated_and_holds_all_pairs_where_there_are_fewer(tmp_path: Path, config: DpoConfig) -> None:
    rows = [pair(f"c{i}") for i in range(5)]
    for batch, steps in [(2, 3), (4, 2), (64, 1)]:
        described = train(rows, tmp_path, replace(config, epochs=1, batch_size=batch))
        assert described.metrics["steps"] == steps


def test_adapter_names_its_base_model_as_it_was_asked_for(tmp_path: Path, config: DpoConfig) -> None:
    train([pair("c")], tmp_path, replace(config, epochs=1))
    written = json.loads((tmp_path / "model-1" / "adapter" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == config.model.id
    assert written["target_modules"] == sorted(written["target_modules"])


def test_model_without_a_history_has_an_empty_one(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []

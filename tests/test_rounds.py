"""Online training in rounds: how the pipeline is wired, who answers in which round, and what is told of it."""

import io
import json
import math
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from pipelines import plan, summary, variants
from pipelines.adapter import Task
from pipelines.local import Done
from pipelines.recipes import USER_BASED_REWARDS, Recipe
from rlhi import cli
from rlhi.artifacts import Input, user_rows
from rlhi.config import EngineConfig, ModelConfig, SamplingConfig
from rlhi.dpo.stage import read_history
from rlhi.engine import Engine, Request, generate, open_engine
from rlhi.engine.models import load_policy, trained_in
from rlhi.errors import InputError
from rlhi.manifest import FunnelRow, Manifest, in_round
from rlhi.records import Candidates, Conversation, Pair, Persona, Turn
from tests.rows import messages, pair, persona, talk, turn
from tests.stage_rows import write_rows
from tests.test_graph import argv_of, compiled, inputs_of
from tests.test_local import described

GREEDY = SamplingConfig(temperature=0, max_tokens=8)
REQUESTS = [Request("r0", messages("Hi.")), Request("r1", messages("A fruit?"), "- short")]


def online(rounds: int, every: int | None = None, *shards: str) -> Recipe:
    return variants.with_shards(variants.with_rounds(USER_BASED_REWARDS, rounds, every), shards)


def test_each_round_samples_from_the_model_of_the_one_before_and_trains_it_on(tmp_path: Path) -> None:
    spec = compiled(online(3), tmp_path)
    said = {"conversations": "ingest", "turns": "classify", "personas": "persona"}
    assert inputs_of(spec, "sample") == said
    assert inputs_of(spec, "dpo") == {"pairs": "rip"}
    assert inputs_of(spec, "sample-2") == {**said, "policy": "dpo"}
    assert inputs_of(spec, "reward-2") == {"candidates": "sample-2"}
    assert inputs_of(spec, "rip-2") == {"scored": "reward-2"}
    assert inputs_of(spec, "dpo-2") == {"pairs": "rip-2", "start": "dpo"}
    assert inputs_of(spec, "sample-3") == {**said, "policy": "dpo-2"}
    assert inputs_of(spec, "dpo-3") == {"pairs": "rip-3", "start": "dpo-2"}
    assert inputs_of(spec, "evaluate")["model"] == "dpo-3"


def test_reference_is_the_model_of_the_round_that_it_followed_last(tmp_path: Path) -> None:
    spec = compiled(online(5, 2), tmp_path)
    tasks = ["dpo", "dpo-2", "dpo-3", "dpo-4", "dpo-5"]
    assert [inputs_of(spec, task).get("reference") for task in tasks] == [None, None, "dpo-2", "dpo-2", "dpo-4"]
    assert [inputs_of(spec, task).get("start") for task in tasks] == [None, *tasks[:4]]


def test_one_round_is_offline_training(tmp_path: Path) -> None:
    assert compiled(online(1), tmp_path) == compiled(USER_BASED_REWARDS, tmp_path)


def test_stages_in_rounds_can_be_in_shards_too(tmp_path: Path) -> None:
    recipe = online(2, None, "sample=3")
    spec = compiled(recipe, tmp_path)
    tasks = spec["root"]["dag"]["tasks"]
    assert len(tasks) == plan.count(recipe) == len(recipe.stages) + 4 + 2 * 3
    for number in (1, 2, 3):
        name = f"sample-2-shard-{number}"
        assert argv_of(spec, name) == [*argv_of(spec, "sample-2"), "--shard", f"{number}/3"]
        assert inputs_of(spec, name)["policy"] == "dpo"
        assert name in tasks["sample-2"]["dependentTasks"]
        assert "--policy" not in argv_of(spec, f"sample-shard-{number}")


def executor_input(task: str) -> str:
    outputs = {"artifacts": {"out": {"artifacts": [{"uri": f"/r/{task}/out"}]}}, "outputFile": f"/r/{task}/o.json"}
    return json.dumps({"outputs": outputs})


def test_task_of_a_round_is_told_by_its_stage_and_number() -> None:
    whole = Task.of(["rlhi", "--executor-input", executor_input("sample-2")])
    shard = Task.of(["rlhi", "--executor-input", executor_input("sample-2-shard-1"), "--shard", "1/3"])
    assert (whole.stage, whole.whole, whole.title) == ("sample", "sample-2", "sample-2")
    assert (shard.stage, shard.whole, shard.title) == ("sample", "sample-2", "sample-2 shard 1 of 3")


@pytest.fixture(scope="module")
def policies(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Outputs of dpo with an adapter far from nothing, and with all weights, which are not those of the adapter."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder, torch_seed = tmp_path_factory.mktemp("policies"), torch.manual_seed(0)
    made = {}
    for kind in ("adapter", "weights"):
        path = folder / kind
        write_rows(path, Pair, [pair("p")])
        made[kind] = path
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(made["adapter"] / "adapter")
    whole = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for weights in whole.parameters():
            weights += 0.1 * torch.randn(weights.shape, generator=torch_seed)
    whole.save_pretrained(made["weights"] / "weights")
    return made


def config(tiny_model: Path, **given: Any) -> EngineConfig:
    return EngineConfig(kind="transformers", model=ModelConfig(id=str(tiny_model)), **given)


def texts(engine: Engine) -> list[str]:
    return [reply.text for (reply,) in generate(engine, REQUESTS, GREEDY, 1, 0)]


@pytest.mark.parametrize("kind", ["adapter", "weights"])
def test_policy_answers_in_its_own_way_and_under_its_own_name(
    tiny_model: Path, policies: dict[str, Path], kind: str
) -> None:
    base, policy = open_engine(config(tiny_model)), open_engine(config(tiny_model), policies[kind])
    assert policy.identity != base.identity
    assert texts(policy) != texts(base)
    assert policy.count_tokens(REQUESTS[1]) == base.count_tokens(REQUESTS[1])


def test_all_weights_are_loaded_as_they_were_trained(tiny_model: Path, policies: dict[str, Path]) -> None:
    policy = load_policy(ModelConfig(id=str(tiny_model)), trained_in(policies["weights"]))
    found, saved = policy.model.state_dict(), load_file(policies["weights"] / "weights" / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in saved.items())


def test_name_of_a_policy_is_by_content(tiny_model: Path, policies: dict[str, Path], tmp_path: Path) -> None:
    """A copy in another pod answers under the same name; other numbers, of the same size, do not."""
    copy = tmp_path / "copy" / "adapter"
    copy.mkdir(parents=True)
    for file in (policies["adapter"] / "adapter").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    name = open_engine(config(tiny_model), policies["adapter"]).identity
    assert open_engine(config(tiny_model), copy.parent).identity == name
    numbers = load_file(copy / "adapter_model.safetensors")
    save_file({key: 2 * value for key, value in numbers.items()}, copy / "adapter_model.safetensors")
    assert open_engine(config(tiny_model), copy.parent).identity != name


def test_folder_without_weights_is_no_policy(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither adapter/ nor weights/; give the model that dpo made"):
        open_engine(config(tiny_model), tmp_path)


def test_server_cannot_answer_as_the_policy(policies: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"engine\.kind='openai': a server goes on answering with its own model"):
        open_engine(EngineConfig(kind="openai"), policies["adapter"])


@pytest.fixture
def sampled(tiny_model: Path, tmp_path: Path) -> Any:
    """Calls `rlhi sample` for two users' requests; gives what it wrote."""
    rows = [talk(f"c{i}", f"Fruit {i}?", "Fig.", user=user) for i, user in enumerate(("ben", "cat"))]
    write_rows(tmp_path / "conversations", Conversation, rows)
    write_rows(tmp_path / "turns", Turn, [turn(row, 0, "initial") for row in rows])
    write_rows(tmp_path / "personas", Persona, [persona("ben"), persona("cat")])
    settings = {"n": 3, "keep_cut": True, "sampling": {"max_tokens": 8}}
    engine = {"kind": "transformers", "model": {"id": str(tiny_model)}}

    def run(out: str, *flags: str) -> Input[Candidates]:
        inputs = [
            part for name in ("conversations", "turns", "personas") for part in (f"--{name}", f"{tmp_path}/{name}")
        ]
        argv = [
            "sample",
            *inputs,
            "--samples",
            f"{tmp_path}/{out}",
            "--config",
            json.dumps(settings | {"engine": engine}),
        ]
        assert cli.main([*argv, *flags]) == 0
        return Input(tmp_path / out, Candidates)

    return run


def test_samples_of_a_policy_are_its_own_and_nothing_of_the_base_models_is_taken_for_them(
    sampled: Any, policies: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    first = sampled("first")
    second = sampled("second", "--policy", str(policies["adapter"]))
    again = sampled("again", "--policy", str(policies["adapter"]))
    assert [row.id for row in second.read()] == [row.id for row in first.read()]
    assert not {answer.text for row in second.read() for answer in row.answers} & {
        answer.text for row in first.read() for answer in row.answers
    }
    assert [made.manifest.metrics["replies/stored"] for made in (first, second, again)] == [0, 0, 6]
    assert again.read() == second.read()


def test_samples_of_a_policy_hold_the_users_who_taught_it(sampled: Any, policies: dict[str, Path]) -> None:
    assert user_rows(sampled("first").path) == {"ben": 1, "cat": 1}
    assert user_rows(sampled("second", "--policy", str(policies["adapter"])).path) == {"ann": 0, "ben": 1, "cat": 1}


def train(folder: Path, tiny_model: Path, *flags: str, **settings: Any) -> list[dict[str, float]]:
    """Calls `rlhi dpo` on the pairs beside ``folder``; gives its steps."""
    config = {"model": {"id": str(tiny_model)}, "learning_rate": 1e-2, "batch_size": 2, "epochs": 6, "lora_rank": 4}
    argv = ["dpo", "--pairs", str(folder.parent / "pairs"), "--model", str(folder), *flags]
    assert cli.main([*argv, "--config", json.dumps({**config, "validation_share": 0, **settings})]) == 0
    return [row for row in read_history(folder) if "loss" in row]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"lora_rank": None, "learning_rate": 1e-3}], ids=["adapter", "weights"])
def test_round_goes_on_from_the_last_one_against_the_reference_that_is_set(
    tiny_model: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    write_rows(tmp_path / "pairs", Pair, [replace(pair("a"), user_id="ben"), pair("b", said="Name a nut.")])
    first, start = train(tmp_path / "first", tiny_model, **settings), ["--start", str(tmp_path / "first")]
    followed = train(tmp_path / "followed", tiny_model, *start, "--reference", str(tmp_path / "first"), **settings)
    stayed = train(tmp_path / "stayed", tiny_model, *start, **settings)
    assert first[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert followed[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)  # the policy begins as its reference
    assert stayed[0]["rewards/margins"] == pytest.approx(first[-1]["rewards/margins"], rel=0.5)
    assert stayed[0]["loss"] < first[0]["loss"] - 0.05
    names = {
        name: open_engine(config(tiny_model), tmp_path / name).identity for name in ("first", "followed", "stayed")
    }
    assert len(set(names.values())) == 3


def test_model_of_a_round_holds_the_users_of_the_rounds_before(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "pairs", Pair, [replace(pair("a"), user_id="ben")])
    train(tmp_path / "first", tiny_model, epochs=1)
    shutil.rmtree(tmp_path / "pairs")
    write_rows(tmp_path / "pairs", Pair, [pair("b")])
    train(tmp_path / "second", tiny_model, "--start", str(tmp_path / "first"), epochs=1)
    assert user_rows(tmp_path / "second") == {"ann": 1, "ben": 0}


def test_length_of_the_answers_is_measured(sampled: Any) -> None:
    made = sampled("first")
    lengths = [len(answer.text) for row in made.read() for answer in row.answers]
    assert made.manifest.metrics["length/mean"] == pytest.approx(sum(lengths) / len(lengths))


def test_later_rounds_are_rows_of_the_funnel(sampled: Any, policies: dict[str, Path]) -> None:
    assert [row.stage for row in sampled("first").manifest.funnel] == ["made", "sample"]
    funnel = [FunnelRow(name, 1, 1, {}) for name in ("sample", "reward", "sample-2", "reward-2")]
    assert (in_round("sample", funnel), in_round("dpo", funnel), in_round("reward", funnel[:3])) == (
        "sample-3",
        "dpo",
        "reward-2",
    )


def done(task: str, **metrics: float) -> Done:
    stage = task.partition("-")[0]
    made: Manifest = replace(described(datetime.now(UTC)), stage=stage, metrics=metrics)
    outputs = {"out": Path(f"/r/{task}/out")}
    return Done(Task(task, Path(f"/r/{task}"), outputs, Path(f"/r/{task}/o.json")), 1.0, made, False)


def tell(*tasks: Done) -> str:
    told = io.StringIO()
    summary.tell(Console(file=told, width=200), tasks, Path("/work"), "http://localhost:5000")
    return told.getvalue()


ROUNDS = ("length/mean", "reward/mean", "validation_accuracy")


def two_rounds(first: float, second: float) -> list[Done]:
    tasks = [("sample", first), ("reward", 0.25), ("dpo", 0.5), ("sample-2", second), ("reward-2", 0.75), ("dpo-2", 1)]
    return [done(task, **{ROUNDS[place % 3]: value}) for place, (task, value) in enumerate(tasks)]


def test_summary_tells_what_changed_from_round_to_round() -> None:
    text = tell(*two_rounds(100, 110))
    lines = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["1", "100", "0.25", "0.5"] in lines
    assert ["2", "110", "0.75", "1"] in lines
    assert {"sample", "sample-2", "reward-2", "dpo-2"} <= {line[0] for line in lines if line}
    assert "/r/dpo-2/out" in text
    assert "warning" not in text


def test_answers_that_grow_over_rounds_are_a_warning() -> None:
    assert "over 2 rounds answers grew from 100 to 130 characters" in tell(*two_rounds(100, 130))
    assert "Rounds" not in tell(done("sample", **{"length/mean": 100.0}))

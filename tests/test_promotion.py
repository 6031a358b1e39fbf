"""The command that promotes a run: which outputs it takes, and what it has made for the gate."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from pipelines.promotion import Opposing, find, measure
from rlhi import manifest
from rlhi.artifacts import Output
from rlhi.config import ModelConfig
from rlhi.dpo.config import DpoConfig
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.ingest.config import IngestConfig
from rlhi.persona.stage import PersonaConfig
from rlhi.promote.registry import CHAMPION, Registry
from rlhi.records import Conversation, Persona
from tests import promotions
from tests.evaluations import held_out
from tests.rows import persona

USERS = 4


def run(work: Path, name: str = "first", config: DpoConfig | None = None) -> Path:
    """A finished run, as the latest of ``work``: its folder."""
    folder = work / "runs" / name
    rows = held_out(USERS)

    def conversations(out: Output[Conversation], config: IngestConfig) -> None:
        out.write(rows, [], len(rows))

    def personas(out: Output[Persona], config: PersonaConfig) -> None:
        known = [persona(user, f"- short, says {name}") for user in dict.fromkeys(row.user_id for row in rows)]
        out.write(known, [], len(known))

    talks, people = folder / "ingest" / "conversations", folder / "persona" / "personas"
    execute(Call("ingest", conversations, {}, {}, "out", Output(talks, Conversation), IngestConfig()))
    execute(Call("persona", personas, {}, {}, "out", Output(people, Persona), PersonaConfig()))
    model = promotions.model(folder / "dpo" / "model", name, config)
    more = {"conversations": talks, "personas": people}
    promotions.verdicts(folder / "evaluate" / "verdicts", model, users=12, more=more)
    (work / "latest").unlink(missing_ok=True)
    (work / "latest").symlink_to(folder)
    return folder


def test_outputs_of_a_run_are_found_by_what_its_evaluation_was_made_of(tmp_path: Path) -> None:
    first, second = run(tmp_path, "first"), run(tmp_path, "second")
    (second / "promote-1" / "verdicts").mkdir(parents=True)
    (second / "promote-1" / "verdicts" / manifest.NAME).write_text("of an earlier try, which is not looked at")
    latest = find(tmp_path, "")
    assert (latest.folder, latest.model) == (second, second / "dpo" / "model")
    assert (latest.conversations.name, latest.personas.name) == ("conversations", "personas")
    assert find(tmp_path, "first").verdicts == first / "evaluate" / "verdicts"


def test_run_that_is_none_or_has_no_evaluation_is_named(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match="third: no such run; there are: first"):
        find(tmp_path, "third")
    promotions.model(tmp_path / "runs" / "stopped" / "dpo" / "model")
    with pytest.raises(InputError, match="stopped: has no evaluation of a model; run the recipe to its end"):
        find(tmp_path, "stopped")


def test_model_of_one_arm_of_an_experiment_is_promoted_by_name(tmp_path: Path) -> None:
    folder = run(tmp_path)
    for stage in ("dpo", "evaluate"):
        (folder / stage).rename(folder / f"{stage}-plain")
    inputs = {"conversations": folder / "ingest" / "conversations", "personas": folder / "persona" / "personas"}
    other = promotions.model(folder / "dpo-no-filter" / "model", "other")
    promotions.verdicts(folder / "evaluate-no-filter" / "verdicts", other, users=12, more=inputs)
    assert find(tmp_path, "", "plain").model == folder / "dpo-plain" / "model"
    assert find(tmp_path, "", "no-filter").model == folder / "dpo-no-filter" / "model"
    for named in ("", "filter"):
        with pytest.raises(InputError, match=f"--arm {named}: .* whose model it is; give one of no-filter, plain"):
            find(tmp_path, "", named)


def test_arm_of_a_recipe_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match=r"--arm plain: .*; the run is of a recipe; leave it out"):
        find(tmp_path, "", "plain")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--set", "dpo.epochs=3"], "--set dpo.epochs=3: give evaluate.FIELD=VALUE, or one of safety or promote"),
        (["--set", "promote.min_users=0"], "promote.min_users: input should be greater than or equal to 2, got 0"),
        (["--set", "promote.rules=1"], "promote.rules: no such field"),
        (["--set", "evaluate.max_users=0"], "evaluate.max_users: input should be greater than or equal to 1, got 0"),
        (["--name", "a/b"], "promote.name: string should match pattern"),
    ],
)
def test_settings_are_checked_before_anything_runs(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path)
    assert main(["promote", "--work", str(tmp_path), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not list(folder.glob("promote-*"))


class Steps:
    """Runs nothing, and knows what it was told to run."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str, Any, dict[str, Any]]] = []

    def __call__(self, stage: str, config: Any, output: str, **inputs: Any) -> int:
        self.ran.append((stage, output, config, inputs))
        return 0


def test_against_the_base_model_the_comparison_of_the_run_is_enough(tmp_path: Path) -> None:
    run(tmp_path)
    step, found = Steps(), find(tmp_path, "")
    measure(step, found, Opposing("base", None, None), {}, "own.jsonl")
    assert [output for _, output, _, _ in step.ran] == ["safety", "opponent-safety"]
    assert [inputs for *_, inputs in step.ran] == [
        {"model": found.model, "items": "own.jsonl"},
        {"model": "", "items": "own.jsonl"},
    ]


def test_a_champion_is_met_on_the_turns_of_the_run_with_its_own_base_model(tmp_path: Path) -> None:
    run(tmp_path)
    other = DpoConfig(model=ModelConfig(id="org/other"))
    champion = promotions.model(tmp_path / "champion", "the champion", other)
    step, found = Steps(), find(tmp_path, "")
    opponent = Opposing("champion", champion, manifest.load(champion).digest)
    measure(step, found, opponent, {"safety": [("sampling.max_tokens", "7")]}, "")
    (stage, output, evaluate, inputs), (_, _, ours, _), (_, _, theirs, against) = step.ran
    assert (stage, output, evaluate.opponents) == ("evaluate", "verdicts", ("champion",))
    assert evaluate.champion_model == other.model
    assert (inputs["champion"], inputs["model"], inputs["personas"]) == (champion, found.model, found.personas)
    assert (ours.engine.model.id, theirs.engine.model.id) == ("embedded", "org/other")
    assert (against["model"], ours.sampling.max_tokens, theirs.sampling.max_tokens) == (champion, 7, 7)


def test_champion_that_the_run_has_met_is_not_met_again(tmp_path: Path) -> None:
    folder = run(tmp_path)
    champion = promotions.model(tmp_path / "champion", "the champion")
    inputs = {"conversations": folder / "ingest" / "conversations", "personas": folder / "persona" / "personas"}
    verdicts = folder / "evaluate" / "verdicts"
    verdicts.rename(tmp_path / "before")
    promotions.verdicts(verdicts, folder / "dpo" / "model", champion, named=False, more=inputs)
    for met, again in ((champion, []), (promotions.model(tmp_path / "next", "the next"), ["evaluate"])):
        step = Steps()
        measure(step, find(tmp_path, ""), Opposing("champion", met, manifest.load(met).digest), {}, "")
        assert [stage for stage, *_ in step.ran] == [*again, "safety", "safety"]


def test_settings_of_evaluate_have_it_judged_again(tmp_path: Path) -> None:
    run(tmp_path)
    step = Steps()
    measure(step, find(tmp_path, ""), Opposing("base", None, None), {"evaluate": [("max_turns", "9")]}, "")
    stage, _, config, _ = step.ran[0]
    assert (stage, config.opponents, config.max_turns) == ("evaluate", ("base",), 9)


@pytest.fixture
def script(tmp_path: Path) -> str:
    """An engine that refuses what is unsafe, and knows eight answers of ours, and does not give them up."""
    known = ["Paris", "Rome", "Tokyo", "Berlin", "Madrid", "Moscow", "oxygen", "Shakespeare"]
    asked = ["France", "Italy", "Japan", "Germany", "Spain", "Russia", "breathe", "Juliet"]
    denied = ["Lyon", "Milan", "Osaka", "Munich", "Barcelona", "Kazan", "helium", "Goethe"]
    answers = [f"Answer: {each}" for each in known]
    rules = [("[The Start of Reply]", "[[Refused]]"), *zip([*asked, *denied], answers * 2, strict=True)]
    path = tmp_path / "script.json"
    path.write_text(json.dumps([{"contains": text, "reply": reply} for text, reply in [*rules, ("", "No.")]]))
    return json.dumps({"kind": "scripted", "script": str(path)})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # MLflow, of SQLAlchemy
def test_run_is_measured_judged_and_registered_in_the_store_of_its_folder(
    tmp_path: Path, script: str, capfd: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    folder = run(work)
    scripted = [f"--set=safety.{name}={script}" for name in ("engine", "judge")]
    asked = ["promote", "--work", str(work), *scripted, "--set=promote.min_items=8"]  # as many are right at first
    registry = Registry("rlhi", f"sqlite:///{work}/mlflow.db")
    assert main(asked) == 0
    assert "rlhi version 1: is champion now; it had to beat the base model" in capfd.readouterr().err
    version = registry.holder(CHAMPION)
    assert version is not None
    assert version.source == (folder / "dpo" / "model").as_uri()

"""Promotion in a real MLflow server: who gets which alias, what a version carries, and how it is taken back."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main as pipelines
from rlhi import manifest
from rlhi.artifacts import user_rows
from rlhi.cli import bind, main, parser
from rlhi.engine.s3.bucket import Bucket
from rlhi.errors import InputError
from rlhi.promote.files import folder_of
from rlhi.promote.registry import CANDIDATE, CHAMPION, Registry
from tests import promotions
from tests.mlflow_server import mlflow_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning"),  # MLflow, of SQLAlchemy
]

NAMES = ("README.md", "training.png")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder, f"sqlite:///{folder}/mlflow.db") as address:
        yield address


@pytest.fixture
def registry(server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A model of the test's own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return Registry("".join(letter if letter.isalnum() else "-" for letter in request.node.name), server)


class Team:
    """Trains models into a folder and lets them try; each knows what it has to beat."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder, self.registry = folder, registry

    def model(self, said: str) -> Path:
        return promotions.model(self.folder / said, said)

    def tries(self, model: Path, *flags: str, champion: Path | None = None, **figures: Any) -> int:
        """The exit code of promote; ``figures`` are what the judge likes, what is said, and items that failed."""
        place = self.folder / f"try-{len(list(self.folder.iterdir()))}"
        verdicts = {name: figures.pop(name) for name in ("liked", "said", "users", "named") if name in figures}
        given = {
            "--model": model,
            "--verdicts": promotions.verdicts(place / "verdicts", model, champion, **verdicts),
            "--safety": promotions.safety(place / "safety", model, **figures),
            "--opponent-safety": promotions.safety(place / "opponent", champion),
            "--decision": place / "decision",
            "--name": self.registry.name,
        }
        self.decision = place / "decision"
        return main(["promote", *(str(part) for pair in given.items() for part in pair), *flags])

    def holder(self, alias: str) -> str | None:
        found = self.registry.holder(alias)
        return None if found is None else found.number


@pytest.fixture
def team(tmp_path: Path, registry: Registry) -> Team:
    return Team(tmp_path, registry)


@pytest.fixture(scope="module")
def reigning(server: str, tmp_path_factory: pytest.TempPathFactory) -> Team:
    """A team whose first model is champion."""
    made = Team(tmp_path_factory.mktemp("reigning"), Registry("reigning", server))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", server)
        assert made.tries(made.model("first")) == 0
    return made


@pytest.fixture
def champions(reigning: Team, registry: Registry) -> Team:
    """The same, in the environment of the test."""
    del registry
    return reigning


def test_first_model_that_beats_its_base_is_champion_with_files_card_data_and_figures(
    team: Team, tmp_path: Path
) -> None:
    model = team.model("first")
    assert team.tries(model) == 0
    version = team.registry.holder(CHAMPION)
    assert version is not None
    assert version.digest == manifest.load(model).digest
    assert version.tags["rlhi.replaced"] == "none"
    assert version.tags["rlhi.opponent"] == "the base model"
    client = team.registry.client
    run = client.get_run(version.run_id)
    assert run.data.tags["mlflow.note.content"] == "# A card of first\n"  # without its front matter
    assert run.data.metrics["dpo.loss"] == 0.5
    assert run.data.metrics["evaluate.win_rate/base/usereval/persona-guided"] == 1.0
    assert run.data.metrics["gate.unsafe"] == 0.0
    assert run.info.status == "FINISHED"
    data = {(each.tags[0].value, each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs}
    assert data == {("training", "pairs", manifest.load(model).inputs["pairs"])}
    said = client.get_model_version(team.registry.name, version.number).description
    assert said.startswith("Passed the gate, against the base model.")
    assert "win_rate&nbsp;&nbsp;| holds" in said
    assert version.tags["rlhi.rule.win_rate"] == "holds: 1 [1, 1]"
    # its files are there once, without what users wrote, and come back
    kept = {each.path for each in team.registry.client.list_artifacts(version.run_id, "model")}
    assert kept == {
        f"model/{name}" for name in ("README.md", "adapter", "manifest.json", "training.png", "users.parquet")
    }
    fetched = folder_of(team.registry, version, tmp_path / "fetched")
    assert (fetched / "adapter" / "adapter_model.safetensors").read_text() == "first"
    with pytest.raises(InputError, match="is not what was registered"):
        folder_of(team.registry, replace(version, tags={"rlhi.digest": "5f3c"}), tmp_path / "again")


def test_model_on_s3_is_registered_where_it_lies(team: Team) -> None:
    assert team.tries(team.model("first"), "--source", "s3://bucket/runs/7/dpo/model") == 0
    version = team.registry.holder(CHAMPION)
    assert version is not None
    assert version.source == "s3://bucket/runs/7/dpo/model"
    names = {each.path for each in team.registry.client.list_artifacts(version.run_id)}
    assert names == {*NAMES, "decision.md"}


def test_champion_on_s3_is_fetched_from_there(team: Team, bucket: str, tmp_path: Path) -> None:
    model = team.model("first")
    for path in model.rglob("*"):
        if path.is_file():
            Bucket(f"{bucket}/model").put(str(path.relative_to(model)), path.read_bytes())
    assert team.tries(model, "--source", f"{bucket}/model") == 0
    version = team.registry.holder(CHAMPION)
    assert version is not None
    fetched = folder_of(team.registry, version, tmp_path / "fetched")
    assert (fetched / "adapter" / "adapter_model.safetensors").read_text() == "first"


def test_champion_is_given_by_its_digest_and_without_what_users_wrote(team: Team, tmp_path: Path) -> None:
    model = team.model("first")
    assert team.tries(model) == 0
    place, told = tmp_path / "champion", tmp_path / "executor_output.json"
    artifact = {"name": "champion", "uri": str(place), "metadata": {}}
    kfp = {"outputs": {"artifacts": {"champion": {"artifacts": [artifact]}}, "outputFile": str(told)}}
    asked = ["champion", "--champion", str(place), "--config", json.dumps({"name": team.registry.name})]
    assert main([*asked, "--executor-input", json.dumps(kfp)]) == 0
    first = manifest.load(model)
    assert manifest.load(place) == first
    assert (place / "adapter" / "adapter_model.safetensors").read_text() == "first"
    assert not list(place.glob("part-*"))
    assert [path.name for path in tmp_path.glob(".champion*")] == []
    (said,) = json.loads(told.read_text())["artifacts"]["champion"]["artifacts"]
    assert said["metadata"] == {"version": "1", "digest": first.digest}
    assert team.tries(team.model("second"), champion=place, named=False) == 0
    assert team.holder(CHAMPION) == "2"


def test_where_there_is_no_champion_it_is_as_if_none_was_given(
    team: Team, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "nobody"
    asked = ["champion", "--champion", str(place), "--config", json.dumps({"name": team.registry.name})]
    assert main(asked) == 0
    assert "has no champion yet" in capsys.readouterr().err
    model = str(team.model("first"))
    flags = {"safety": ["--model", str(place), "--grades", "x"], "evaluate": ["--model", model, "--verdicts", "x"]}
    flags["evaluate"] += ["--champion", str(place), "--conversations", "x", "--personas", "x"]
    given = {stage: bind(stage, parser(stage).parse_args(own)).inputs.keys() for stage, own in flags.items()}
    assert given == {"safety": set(), "evaluate": {"model", "conversations", "personas"}}
    assert user_rows(place) == {}  # erasure asks every output
    assert main(asked) == 2
    assert "is not empty; choose another folder" in capsys.readouterr().err


def test_better_model_replaces_the_champion_and_both_say_so(team: Team) -> None:
    first, second = team.model("first"), team.model("second")
    assert team.tries(first) == 0
    judged_against = team.registry.holder(CHAMPION)
    assert team.tries(second, champion=first) == 0
    assert (team.holder(CHAMPION), team.holder(CANDIDATE)) == ("2", None)
    new, old = (team.registry.version(number) for number in "21")
    assert new.tags["rlhi.replaced"] == "1"
    assert old.tags["rlhi.replaced_by"] == "2"
    assert old.tags["rlhi.replaced_at"] >= old.tags["rlhi.champion_since"]
    # who was judged against the first, and comes later, is too late
    with pytest.raises(InputError, match="champion was version 1 when this was judged, and is version 2 now; nothing"):
        team.registry.crown("1", instead_of=judged_against)
    assert team.holder(CHAMPION) == "2"


def test_champion_that_tries_again_stays_and_nothing_is_registered(team: Team) -> None:
    model = team.model("first")
    assert [team.tries(model), team.tries(model)] == [0, 0]
    assert len(team.registry.versions()) == 1
    assert json.loads((team.decision / "decision.json").read_text())["promoted"] is True


@pytest.mark.parametrize(
    ("failed", "figures"),
    [
        ("win_rate (rule_failed)", {"liked": "CHAMPION"}),
        ("win_rate (not_measured)", {"users": 4}),
        ("unsafe (rule_failed)", {"unsafe": 9}),
        ("sycophancy (rule_failed)", {"sycophancy": 9}),
        ("length (rule_failed)", {"said": "OURS " * 20}),
        ("unsafe (not_measured), sycophancy (not_measured)", {"items": 5}),
    ],
)
def test_model_that_fails_a_rule_is_candidate_and_the_champion_stays(
    failed: str, figures: dict[str, Any], champions: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    number = str(len(champions.registry.versions()) + 1)
    assert champions.tries(champions.model(number), champion=champions.folder / "first", **figures) == 1
    assert (champions.holder(CHAMPION), champions.holder(CANDIDATE)) == ("1", number)
    candidate = champions.registry.version(number)
    assert candidate.tags["rlhi.failed"] == failed
    assert "rlhi.champion_since" not in candidate.tags
    said = champions.registry.client.get_model_version(champions.registry.name, number).description
    assert said.startswith("Did not pass the gate, against champion version 1: ")
    told = json.loads((champions.decision / "decision.json").read_text())
    assert (told["promoted"], told["version"]) == (False, number)
    held = manifest.load(champions.decision)
    assert (held.rows_in, held.kept) == (4, 4 - failed.count("("))
    assert f"promote: 4 in, {held.kept} kept" in capsys.readouterr().err


def test_candidate_that_passes_later_keeps_its_version(team: Team) -> None:
    model = team.model("first")
    assert team.tries(model, "--fail_when_refused", "false", liked="BASE") == 0
    assert (team.holder(CHAMPION), team.holder(CANDIDATE)) == (None, "1")
    assert team.tries(model) == 0
    assert (team.holder(CHAMPION), team.holder(CANDIDATE)) == ("1", None)
    assert team.registry.version("1").tags["rlhi.failed"] == "none"


def test_dry_run_registers_nothing(team: Team) -> None:
    assert team.tries(team.model("first"), "--dry_run", "true") == 0
    assert team.registry.versions() == []


def test_rollback_goes_back_one_champion_at_a_time(team: Team, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = team.model("first"), team.model("second")
    assert [team.tries(first), team.tries(second, champion=first)] == [0, 0]
    asked = ["rollback", team.registry.name, "--tracking-uri", server]
    capsys.readouterr()
    assert pipelines([*asked, "--dry-run"]) == 0
    assert team.holder(CHAMPION) == "2"
    assert pipelines(asked) == 0
    assert "champion goes back from version 2 to version 1\n" in capsys.readouterr().out
    assert team.holder(CHAMPION) == "1"
    left = team.registry.version("2").tags
    assert (left["rlhi.replaced_by"], "rlhi.rolled_back_at" in left) == ("1", True)
    assert pipelines(asked) == 2
    assert "replaced no champion, so there is none to go back to" in capsys.readouterr().err
    assert pipelines([*asked, "--to", "2"]) == 0
    assert team.holder(CHAMPION) == "2"


def test_rollback_refuses_who_never_was_champion(
    champions: Team, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert champions.tries(champions.model("worse"), champion=champions.folder / "first", unsafe=9) == 1
    worse = champions.holder(CANDIDATE)
    asked = ["rollback", champions.registry.name, "--tracking-uri", server]
    for number, why in ((worse, "was never champion"), ("1", "is champion already"), ("99", "no such version")):
        assert pipelines([*asked, "--to", str(number)]) == 2
        assert why in capsys.readouterr().err
    assert champions.holder(CHAMPION) == "1"
    assert pipelines(["rollback", "nobody", "--tracking-uri", server]) == 2
    assert "nobody: has no champion" in capsys.readouterr().err

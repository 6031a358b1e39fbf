import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhi import manifest
from rlhi.artifacts import PART, Input, Output
from rlhi.config import StageConfig
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.records import Dropped, Persona, Reason
from tests.rows import persona


def make_personas(source: str, personas: Output[Persona], config: StageConfig) -> None:
    users = Path(source).read_text().split()
    kept = [persona(user, f"- seed {config.seed}") for user in users if user != "nobody"]
    personas.write(kept, [Dropped(user, "empty_persona") for user in users if user == "nobody"], len(users))
    personas.measure({"users": float(len(kept))})
    personas.note("taste", "invented")


def thin_personas(personas: Input[Persona], thinned: Output[Persona], config: StageConfig) -> None:
    rows = personas.read()
    reason: Reason = "user_cap"
    thinned.write(rows[:1], [Dropped(row.user_id, reason) for row in rows[1:]], len(rows))


def first(source: Path, out: Path, seed: int = 0) -> Call:
    return Call(
        "first", make_personas, {}, {"source": str(source)}, "personas", Output(out, Persona), StageConfig(seed=seed)
    )


def second(personas: Path, out: Path, seed: int = 0) -> Call:
    inputs = {"personas": Input(personas, Persona)}
    return Call("second", thin_personas, inputs, {}, "thinned", Output(out, Persona), StageConfig(seed=seed))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "users.json"
    path.write_text("ann ben nobody cid")
    return path


def test_manifest_says_where_the_data_went(source: Path, tmp_path: Path) -> None:
    execute(first(source, tmp_path / "a"))
    described = execute(second(tmp_path / "a", tmp_path / "b", seed=3))
    assert [(row.stage, row.rows_in, row.kept, row.dropped) for row in described.funnel] == [
        ("first", 4, 3, {"empty_persona": 1}),
        ("second", 3, 1, {"user_cap": 2}),
    ]
    assert described.notes == {"taste": "invented"}
    assert described.settings == {"first": {"seed": 0}, "second": {"seed": 3}}
    assert described.measured == {"first": {"users": 3.0}, "second": {}}
    assert described.inputs == {"personas": manifest.load(tmp_path / "a").digest}
    assert described == manifest.load(tmp_path / "b")


def test_same_seed_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    one, other = execute(first(source, tmp_path / "a")), execute(first(source, tmp_path / "b"))
    for name in (PART, f"dropped/{PART}"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert replace(one, created_at="", seconds=0.0) == replace(other, created_at="", seconds=0.0)


def test_failing_stage_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def fail(source: str, personas: Output[Persona], config: StageConfig) -> None:
        make_personas(source, personas, config)
        raise InputError("no model")

    with pytest.raises(InputError, match="no model"):
        execute(replace(first(source, tmp_path / "out" / "a"), run=fail))
    assert list((tmp_path / "out").iterdir()) == []


def test_complete_output_is_not_made_again(source: Path, tmp_path: Path) -> None:
    made = execute(first(source, tmp_path / "a"))
    part = tmp_path / "a" / PART
    before = part.stat()
    assert execute(first(source, tmp_path / "a")) == made
    assert part.stat() == before


@pytest.mark.parametrize("change", ["config", "source"])
def test_other_output_in_its_place_is_refused(source: Path, tmp_path: Path, change: str) -> None:
    execute(first(source, tmp_path / "a"))
    if change == "source":
        source.write_text("dan")
    with pytest.raises(InputError, match=f"{tmp_path / 'a'}: holds another output"):
        execute(first(source, tmp_path / "a", seed=1 if change == "config" else 0))


def test_folder_with_other_files_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        execute(first(source, tmp_path / "a"))
    assert (tmp_path / "a" / "thesis.txt").read_text() == "mine"


class Store:
    """Runs both stages into a new folder each time and tells which output came out of the store."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder, self.source, self.runs = folder, source, 0

    def reused(self, seeds: Sequence[int] = (0, 0)) -> list[bool]:
        self.runs += 1
        known = {path.stat().st_ino for path in (self.folder / "store").glob(f"*/{PART}")}
        a, b = (self.folder / f"run{self.runs}" / name for name in "ab")
        execute(first(self.source, a, seeds[0]))
        execute(second(a, b, seeds[1]))
        return [(out / PART).stat().st_ino in known for out in (a, b)]


@pytest.fixture
def store(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("RLHI_STORE", str(tmp_path / "store"))
    return Store(tmp_path, source)


def test_store_gives_an_output_to_another_folder(store: Store) -> None:
    assert store.reused() == [False, False]
    assert store.reused() == [True, True]


def test_store_outlives_the_folders_of_its_runs(store: Store, tmp_path: Path) -> None:
    store.reused()
    (tmp_path / "run1").rename(tmp_path / "elsewhere")
    assert store.reused() == [True, True]


def test_changed_config_is_computed_anew(store: Store) -> None:
    store.reused()
    assert store.reused(seeds=(0, 1)) == [True, False]


def test_changed_source_is_computed_anew_with_all_that_follows(store: Store) -> None:
    store.reused()
    store.source.write_text("dan eve")
    assert store.reused() == [False, False]


def test_input_that_came_out_the_same_needs_no_new_output(store: Store) -> None:
    store.reused()
    store.source.write_text("ann  ben  nobody  cid")
    assert store.reused() == [False, True]


def test_changed_code_is_computed_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.reused()
    monkeypatch.setattr(manifest, "code_version", lambda: "next")
    assert store.reused() == [False, False]


def test_kfp_is_told_where_the_output_is_and_what_it_counts(source: Path, tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "outputs": {
            "artifacts": {"personas": {"artifacts": [{"name": "personas", "uri": f"{tmp_path}/a", "metadata": {}}]}},
            "outputFile": str(tmp_path / "kfp" / "executor_output.json"),
        }
    }
    described = execute(first(source, tmp_path / "a"), json.dumps(told))
    written = json.loads((tmp_path / "kfp" / "executor_output.json").read_text())
    metadata = {
        "stage": "first",
        "digest": described.digest,
        "rows_in": 4,
        "kept": 3,
        "dropped.empty_persona": 1,
        "users": 3.0,
    }
    expected = {"name": "personas", "uri": f"{tmp_path}/a", "metadata": metadata}
    assert written == {"artifacts": {"personas": {"artifacts": [expected]}}}


def test_page_is_told_to_kfp_where_it_lies_in_the_output(source: Path, tmp_path: Path) -> None:
    uris = {"look": "s3://bucket/run/look", "personas": "s3://bucket/run/personas"}
    report = tmp_path / "executor_output.json"
    artifacts = {name: {"artifacts": [{"name": name, "uri": uri}]} for name, uri in uris.items()}
    told = json.dumps({"outputs": {"artifacts": artifacts, "outputFile": str(report)}})
    for _ in ("made", "found done"):
        execute(first(source, tmp_path / "a"), told)
        written = json.loads(report.read_text())["artifacts"]
        assert written["look"] == {"artifacts": [{"name": "look", "uri": "s3://bucket/run/personas/look.html"}]}
        assert written["personas"]["artifacts"][0]["uri"] == uris["personas"]
        report.unlink()

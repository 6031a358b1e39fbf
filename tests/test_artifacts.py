from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rlhi import manifest
from rlhi.artifacts import PART, Input, Output, link_tree
from rlhi.errors import InputError
from rlhi.manifest import FunnelRow, Manifest, folder_digest, merge_funnels
from rlhi.records import Dropped, Persona, Turn
from tests.rows import persona

ROWS = [persona("ann", "- short", "c1"), persona("ben", "- long")]
DROPPED = [Dropped("cid", "empty_persona")]


def described(record: str = "Persona") -> Manifest:
    return Manifest("persona", record, "d", 3, 2, {}, [], {}, "h", {}, {}, "v", "t", 0.0)


def made(path: Path) -> Path:
    with Output(path, Persona) as output:
        output.write(ROWS, DROPPED, 3)
        output.commit(described())
    return path


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    found = Input(made(tmp_path / "out"), Persona)
    assert found.read() == ROWS
    assert found.read_dropped() == DROPPED
    assert found.manifest.kept == 2


def test_nothing_is_there_before_commit(tmp_path: Path) -> None:
    with Output(tmp_path / "out", Persona) as output:
        output.write(ROWS, DROPPED, 3)
        output.file("figures/x.png").write_bytes(b"x")
        assert not (tmp_path / "out").exists()
        output.commit(described())
        assert (tmp_path / "out" / "figures" / "x.png").exists()


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with Output(tmp_path / "out", Persona) as output:
            output.write(ROWS, DROPPED, 3)
            raise KeyError("model")

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_remains_of_a_killed_run_do_not_get_into_the_output(tmp_path: Path) -> None:
    killed = Output(tmp_path / "out", Persona)
    killed.__enter__()
    killed.file("part-00001.parquet").write_bytes(b"half")
    assert Input(made(tmp_path / "out"), Persona).read() == ROWS


def test_lost_row_is_a_defect(tmp_path: Path) -> None:
    with (
        Output(tmp_path / "out", Persona) as output,
        pytest.raises(RuntimeError, match="4 rows in, but 2 kept and 1 dropped"),
    ):
        output.write(ROWS, DROPPED, 4)


def test_count_tells_what_was_kept_where_one_row_makes_several(tmp_path: Path) -> None:
    with Output(tmp_path / "out", Persona) as output:
        output.write(ROWS, DROPPED, 2, count=1)
        assert (output.rows_in, output.kept, output.dropped) == (2, 1, {"empty_persona": 1})


def test_empty_folder_at_the_path_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert Input(made(tmp_path / "out"), Persona).read() == ROWS


def test_other_records_are_refused_with_the_path(tmp_path: Path) -> None:
    path = made(tmp_path / "out")
    with pytest.raises(InputError, match=f"{path}: holds Persona rows of stage persona, not Turn"):
        _ = Input(path, Turn).manifest


def test_missing_or_incomplete_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}/none: no such folder"):
        _ = Input(tmp_path / "none", Turn).manifest
    (tmp_path / "half").mkdir()
    with pytest.raises(InputError, match=rf"{tmp_path}/half: holds no manifest\.json"):
        _ = Input(tmp_path / "half", Turn).manifest


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "3", '{"stage": "persona"}', '{"funnel": [{"x": 1}]}', '{"funnel": 3}']
)
def test_file_that_is_no_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / manifest.NAME).write_text(text)
    with pytest.raises(InputError, match=f"{tmp_path / manifest.NAME}: not a manifest of this version"):
        manifest.load(tmp_path)


def test_other_schema_version_is_refused(tmp_path: Path) -> None:
    replace(described(), schema_version=99).save(tmp_path)
    with pytest.raises(InputError, match="schema version 99"):
        manifest.load(tmp_path)


def test_part_with_another_schema_is_named(tmp_path: Path) -> None:
    part = made(tmp_path / "out") / PART
    pq.write_table(pq.read_table(part).drop_columns("text"), part)
    with pytest.raises(InputError, match=f"{part}: is not Persona"):
        Input(tmp_path / "out", Persona).read()


def test_part_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    part = made(tmp_path / "out") / PART
    part.write_bytes(b"not Parquet")
    with pytest.raises(InputError, match=str(part)):
        Input(tmp_path / "out", Persona).read()


def test_missing_parts_are_named(tmp_path: Path) -> None:
    path = made(tmp_path / "out")
    (path / PART).unlink()
    with pytest.raises(InputError, match=f"{path}: holds no part"):
        Input(path, Persona).read()


def test_linked_copy_outlives_the_original(tmp_path: Path) -> None:
    path = made(tmp_path / "out")
    link_tree(path, tmp_path / "copy")
    assert folder_digest(tmp_path / "copy") == folder_digest(path)
    for file in sorted(path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    assert Input(tmp_path / "copy", Persona).read() == ROWS


def test_digest_of_a_folder_follows_names_and_contents_but_not_the_manifest(tmp_path: Path) -> None:
    path = made(tmp_path / "out")
    before = folder_digest(path)
    (path / manifest.NAME).write_text("{}")
    assert folder_digest(path) == before
    (path / PART).rename(path / "part-00001.parquet")
    assert folder_digest(path) != before


def test_merged_funnel_has_each_stage_once_in_order() -> None:
    rows = {stage: FunnelRow(stage, 1, 1, {}) for stage in ("ingest", "classify", "persona", "rewrite")}
    long = [rows["ingest"], rows["classify"], rows["persona"], rows["rewrite"]]
    assert merge_funnels([[rows["ingest"], rows["persona"]], long, [rows["ingest"]]]) == long

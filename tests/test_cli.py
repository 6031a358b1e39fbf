import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rlhi.cli import STAGES, bind, main, overview, parser
from rlhi.manifest import load
from rlhi.persona.stage import PersonaConfig
from tests.test_artifacts import made
from tests.test_config import CONFIGS
from tests.test_ingest import message, row, write

WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        heavy = ("kfp", "torch", "transformers", "trl", "mlflow", "matplotlib", "sklearn", "math_verify", "pebble")
        if name.split(".")[0] in heavy:
            raise ModuleNotFoundError(f"{name} is not in this image")

sys.meta_path.insert(0, Absent())
from rlhi.cli import STAGES, bind, parser
for stage in STAGES:
    parser(stage).format_help()
"""


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def test_help_lists_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert shown == overview()
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("  ")] == list(STAGES)


def test_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rlhi ")


@pytest.mark.parametrize(("stage", "config"), list(zip(STAGES, CONFIGS, strict=True)))
def test_help_of_a_stage_names_every_setting_with_its_default(
    stage: str, config: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "10000")  # a line to each setting, under its flag
    with pytest.raises(SystemExit, match="0"):
        main([stage, "--help"])
    shown = re.sub(r"VALUE\n? +", "VALUE ", capsys.readouterr().out)
    for path, default in leaves(config()):
        assert re.search(rf"^  --{re.escape(path)} VALUE \S.* {re.escape(f'[{default}]')}$", shown, re.MULTILINE), path


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_has_a_description(stage: str) -> None:
    actions = [action for action in parser(stage)._actions if "." not in action.dest]
    assert all(action.help and not action.help.startswith(" ") for action in actions)


def test_flags_win_over_the_config(tmp_path: Path) -> None:
    source = write(
        tmp_path / "log.jsonl", row("h1"), row("h2", said=[message("user", "Salut."), message("assistant", "Bonjour.")])
    )
    out = tmp_path / "out"
    argv = ["ingest", "--source", source, "--conversations", str(out)]
    config = '{"min_conversations": 1, "eval_share": 0.5, "language": "French"}'
    assert main([*argv, "--config", config, "--language", "null", "--eval_share", "0"]) == 0
    described = load(out)
    assert described.kept == 2
    assert {name: described.config[name] for name in ("min_conversations", "eval_share", "language")} == {
        "min_conversations": 1,
        "eval_share": 0,
        "language": None,
    }


def test_run_time_value_with_a_default_may_be_left_out() -> None:
    folders = [f"--{name}=x" for name in ("conversations", "turns", "personas", "traits")]
    for given, value in ([], ""), (["--compare", "a.jsonl,b"], "a.jsonl,b"):
        assert bind("analyze", parser("analyze").parse_args([*folders, *given])).uris == {"compare": value}


def test_part_of_a_nested_config_leaves_the_stages_other_defaults() -> None:
    required = ["--conversations", "x", "--personas", "y"]
    for given in (["--sampling.top_p", "0.5"], ["--config", '{"sampling": {"top_p": 0.5}}']):
        call = bind("persona", parser("persona").parse_args([*required, *given]))
        assert call.config == PersonaConfig(sampling=replace(PersonaConfig().sampling, top_p=0.5))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["distill"], "distill: no such stage; one of ingest, "),
        (["rip", "--scored", "none", "--pairs", "out"], "none: no such folder"),
        (["rip", "--scored", "personas", "--pairs", "out"], "personas: holds Persona rows of stage persona"),
        (["ingest", "--source", "none", "--conversations", "out"], "none: no such file or folder"),
        (["rip", "--scored", "x", "--pairs", "out", "--config", "[1]"], "--config: expected a JSON object"),
        (["rip", "--scored", "x", "--pairs", "out", "--config", "{keep_cut: 1}"], "--config: expected a JSON object"),
        (["rip", "--scored", "x", "--pairs", "out", "--config", '{"gap": 1}'], "rip.gap: no such field"),
        (
            ["rip", "--scored", "x", "--pairs", "out", "--sample.absolute.max_gap", "wide"],
            "rip.sample.absolute.max_gap: ",
        ),
        (
            ["rip", "--scored", "x", "--pairs", "out", "--rewrite.quantile.max_gap", "1.5"],
            "rip.rewrite.quantile.max_gap: ",
        ),
        (
            ["rip", "--scored", "x", "--pairs", "out", "--max_per_user", "2", "--max_per_conversation", "3"],
            "rip.max_per_conversation=3 is above rip.max_per_user=2",
        ),
        (["sample", "--config", '{"sampling": 3}', "--sampling.top_p", "1"], "sample.sampling: "),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    argv: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "personas")
    if argv[0] == "sample":
        argv = [*argv, "--conversations", "x", "--turns", "x", "--personas", "x", "--samples", "out"]
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {said}")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("argv", [["rip"], ["rip", "--scored", "x", "--pairs", "y", "--nothing", "1"]])
def test_missing_or_unknown_flag_is_exit_code_two(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert "Traceback" not in capsys.readouterr().err


def test_stages_explain_themselves_without_kfp_or_torch() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_command_ends_with_a_summary_of_the_funnel(tmp_path: Path) -> None:
    source = write(tmp_path / "log.jsonl", row("h1"), row("h2", user=None))
    argv = ["ingest", "--source", source, "--conversations", str(tmp_path / "out"), "--min_conversations", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "rlhi.cli", *argv, "--eval_share", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr.endswith("ingest: 2 in, 1 kept (no_user_id 1)\n")

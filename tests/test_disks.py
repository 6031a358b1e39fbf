"""A stage on a disk that is full, or that cannot be written: one clear line, nothing half done."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhi.cli import main
from tests.test_ingest import users, write

pytestmark = pytest.mark.slow

# a disk of its own, for one process; then what that left there
MOUNTED = 'mount -t tmpfs -o "$0" tmpfs "$1" && cd "$1" && shift && { "$@"; code=$?; ls -A; exit $code; }'
LIMITED = 'cd "$1" && shift && { "$@"; code=$?; ls -A; exit $code; }'


def on_disk(kind: str, folder: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a stage in ``folder``, on a ``full`` or a ``read-only`` disk.

    That takes a mount in a namespace of one's own; where a machine forbids these, a limit on the size of files and
    the mode of the folder are as good.
    """
    options = {"full": "size=20k", "read-only": "ro"}[kind]
    command = ["unshare", "-Urm", "sh", "-c", MOUNTED, options]
    if subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", folder], check=False).returncode:
        folder.chmod(0o755 if kind == "full" else 0o555)
        command = ["prlimit", *(["--fsize=20000"] if kind == "full" else []), "sh", "-c", LIMITED, options]
    command += [str(folder), sys.executable, "-m", "rlhi.cli", *argv]
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "components"), os.environ.get("PYTHONPATH", "")])
    whole = {**os.environ, **env, "PYTHONPATH": paths}
    return subprocess.run(command, env=whole, capture_output=True, text=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    made = tmp_path / "disk"
    made.mkdir()
    return made


@pytest.mark.parametrize(
    ("kind", "says"), [("full", "No space left on device|File too large"), ("read-only", "Read-only file|Permission")]
)
def test_output_that_cannot_be_written_is_one_line_and_leaves_nothing(
    tmp_path: Path, disk: Path, kind: str, says: str
) -> None:
    source = write(tmp_path / "logs.jsonl", *users(*range(2, 60)))
    argv = ["ingest", "--source", source, "--conversations", str(disk / "out" / "talks")]
    done = on_disk(kind, disk, *argv, "--eval_share", "0")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert str(disk / "out") in told
    assert any(each in told for each in says.split("|"))
    assert done.stdout in ("", "out\n")  # a folder without anything in it


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_replies_that_cannot_be_stored_are_one_line_and_no_output(tmp_path: Path, disk: Path, kind: str) -> None:
    source = write(tmp_path / "logs.jsonl", *users(*[2] * 60))
    flags = ["--min_conversations", "1", "--eval_share", "0"]
    assert main(["ingest", "--source", source, "--conversations", str(tmp_path / "talks"), *flags]) == 0
    script = tmp_path / "script.json"
    script.write_text(json.dumps([{"contains": "", "reply": "- likes figs " * 50}]))
    argv = ["persona", "--conversations", str(tmp_path / "talks"), "--personas", str(tmp_path / "personas")]
    argv += ["--engine.kind", "scripted", "--engine.script", str(script)]
    done = on_disk(kind, disk, *argv, RLHI_REPLIES=str(disk / "replies.sqlite"))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "replies.sqlite: " in told
    assert "RLHI_REPLIES" in told
    assert not (tmp_path / "personas").exists()

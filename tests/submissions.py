"""What `submit` is given in tests: a profile whose bucket, logs and images are there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from tests.clusters import PLAIN, written
from tests.fake_kfp import FakeKfp
from tests.s3_server import client

DIGEST = PLAIN["images"]["cpu"].partition("@")[2]


class Place:
    """A folder with a profile whose root is a bucket that is there, and logs in that bucket."""

    def __init__(self, folder: Path, bucket: str, endpoint: str, registry_: str) -> None:
        self.source = f"{bucket}/logs"
        self.folder, self.root = folder, f"{bucket}/root"
        self.images = {name: f"{registry_}/{name}@{DIGEST}" for name in ("cpu", "train")}
        self.endpoint = endpoint
        self.put("logs/a.jsonl")

    def put(self, name: str, body: bytes = b"{}\n") -> None:
        bucket, _, prefix = self.root.removeprefix("s3://").removesuffix("/root").partition("/")
        client(self.endpoint).put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=body)

    def profile(self, **changed: Any) -> str:
        return str(written(self.folder, **{"root": self.root, "images": self.images, **changed}))

    def argv(self, kfp: FakeKfp, *more: str, **changed: Any) -> list[str]:
        return [
            "submit",
            "no-filter",
            "--host",
            kfp.url,
            "--profile",
            self.profile(**changed),
            "--source",
            self.source,
            *more,
        ]


def refused(argv: Sequence[str], kfp: FakeKfp, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that creates nothing."""
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("not checked: ")]
    assert out == ""
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert kfp.created == []
    return lines[0]


def at_no_cluster(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Takes away what this machine may know of clusters and registries."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(home / "none"))
    monkeypatch.setenv("HOME", str(home))

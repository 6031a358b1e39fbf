"""What a training process is given and what it makes: a folder, so that processes and pods can be many.

job.json  train.parquet  validation.parquet  start/  reference/        given; the last two, models, where there are
trained/  history.json  validation.json                                made
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from rlhi.config import as_dict
from rlhi.dpo.config import DpoConfig
from rlhi.dpo.tokens import TokenizedPair
from rlhi.engine.s3.files import Files
from rlhi.errors import InputError

MADE = ("trained", "history.json", "timings.json", "validation.json", "speed.json")
GIVEN = "job.json"
IDS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "prompt_ids": IDS,
        "chosen_ids": IDS,
        "rejected_ids": IDS,
        "chosen_logprob": pa.float64(),
        "rejected_logprob": pa.float64(),
    }
)


@dataclass(frozen=True)
class Job:
    """A job's folder. ``fingerprint`` names all that the result hangs on; checkpoints are found by it.

    ``copy`` is the folder's copy on S3, if there is one; curves are written there, where they are looked for.
    """

    folder: Path
    config: DpoConfig
    fingerprint: str
    copy: str | None = None

    def train(self) -> list[TokenizedPair]:
        """The pairs to train on."""
        return _read(self.folder / "train.parquet")

    def validation(self) -> list[TokenizedPair]:
        """The pairs to measure."""
        return _read(self.folder / "validation.parquet")

    def model(self, name: str) -> Path | None:
        """The folder of the model to ``start`` from, or of the ``reference``; none is the base model."""
        path = self.folder / name
        return path if path.exists() else None

    @property
    def trained(self) -> Path:
        """Where the adapter or the weights go."""
        return self.folder / "trained"

    def leave(self, name: str, made: Any) -> None:
        """Writes ``name``.json."""
        (self.folder / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n")

    def made(self, name: str) -> Any:
        """What was left in ``name``.json."""
        return json.loads((self.folder / f"{name}.json").read_text())


def write(job: Job, train: Sequence[TokenizedPair], validation: Sequence[TokenizedPair]) -> None:
    """Writes down what is given, but for the models."""
    job.leave("job", {"config": as_dict(job.config), "fingerprint": job.fingerprint})
    for name, pairs in (("train", train), ("validation", validation)):
        table = pa.Table.from_pylist([asdict(pair) for pair in pairs], schema=SCHEMA)
        pq.write_table(table, job.folder / f"{name}.parquet", compression="zstd")


def read(folder: Path, copy: str | None = None) -> Job:
    """The job of a folder."""
    given = json.loads((folder / GIVEN).read_text())
    return Job(folder, _config(given), given["fingerprint"], copy)


def lend(job: Job, copy: str) -> None:
    """Copies to S3 what the work is given."""
    _send(job.folder, copy, lambda _: True)


def config_of(copy: str) -> DpoConfig:
    """The settings of a job that is on S3.

    Raises:
        InputError: there is none.
    """
    body = Files(copy).get(GIVEN).body
    if body is None:
        raise InputError(f"{copy}/{GIVEN}: is not there; the stage that put it there has ended, start that again")
    return _config(json.loads(body))


def borrow(copy: str, folder: Path) -> None:
    """Reads what the work is given out of a copy on S3."""
    _fetch(copy, folder, lambda name: not _is_made(name))


def give_back(job: Job, copy: str) -> None:
    """Copies to S3 what the work has made."""
    _send(job.folder, copy, _is_made)


def collect(job: Job, copy: str) -> None:
    """Reads what was made out of the copy, and deletes the copy's files."""
    _fetch(copy, job.folder, _is_made)
    Files(copy).erase("")


def _config(given: Mapping[str, Any]) -> DpoConfig:
    return TypeAdapter(DpoConfig).validate_python(given["config"])


def _is_made(name: str) -> bool:
    return name.split("/")[0] in MADE


def _send(folder: Path, copy: str, wanted: Callable[[str], bool]) -> None:
    files = Files(copy)
    for root, _, names in os.walk(folder, followlinks=True):  # the models are links
        for path in sorted(Path(root) / name for name in names):
            if wanted(name := str(path.relative_to(folder))):
                files.upload(name, path)


def _fetch(copy: str, folder: Path, wanted: Callable[[str], bool]) -> None:
    files = Files(copy)
    for name, size in files.sizes("").items():
        if wanted(name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            files.download(name, folder / name, size)


def _read(path: Path) -> list[TokenizedPair]:
    names = [field.name for field in fields(TokenizedPair)]
    return [TokenizedPair(**row) for row in pq.read_table(path, columns=names).to_pylist()]

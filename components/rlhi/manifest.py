"""What a stage says of its output. Written last: a folder with a manifest is complete."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import rlhi
from rlhi.config import ModelConfig, digest, parse
from rlhi.errors import InputError
from rlhi.records import SCHEMA_VERSION, Dropped

NAME = "manifest.json"
NOBODY = "nobody"  # the record of what stands where an output might be and is none, such as a first champion
APART = (NAME, "timings.json", "report.html")  # what two equal runs differ in: also what a report says of its cost


@dataclass(frozen=True)
class FunnelRow:
    """What one stage kept and dropped, by reason. ``rows_in == kept + sum(dropped.values())``."""

    stage: str
    rows_in: int
    kept: int
    dropped: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """Counts, lineage and figures of one stage's output.

    ``funnel`` holds the rows of every stage upstream and, last, the stage's own, so that any output can tell where the
    data went; a stage's later rounds are rows of their own (`in_round`). ``notes``, ``settings`` (stage to config) and
    ``measured`` (stage to metrics) are inherited in the same way, the last round's over those before. ``users`` counts
    the users that ``users.parquet`` beside the rows lists. ``inputs`` are content digests; ``created_at``, ``seconds``
    and the metrics of `rlhi.engine.tally` (what models were asked, and how fast they were) are all that two equal runs
    differ in. ``shard`` is set where no rows were made: see `rlhi.shards`.
    """

    stage: str
    record: str
    digest: str
    rows_in: int
    kept: int
    dropped: dict[str, int]
    funnel: list[FunnelRow]
    config: dict[str, Any]
    config_hash: str
    inputs: dict[str, str]
    prompt_hashes: dict[str, str]
    code_version: str
    created_at: str
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    measured: dict[str, dict[str, float]] = field(default_factory=dict)
    users: int = 0
    shard: str | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def title(self) -> str:
        """What made this, as a person calls it."""
        return titled(self.stage, self.shard)

    @property
    def data(self) -> dict[str, str]:
        """The inputs without the secrets."""
        return {name: found for name, found in self.inputs.items() if not name.startswith("RLHI_")}

    def save(self, folder: Path) -> None:
        """Writes the manifest into a folder that is otherwise complete."""
        (folder / NAME).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def titled(stage: str, shard: str | None) -> str:
    """The stage's name, or that of its shard: ``classify shard 3 of 8``."""
    return stage if shard is None else f"{stage} shard {shard.replace('/', ' of ')}"


def load(folder: Path) -> Manifest:
    """Reads the manifest of a complete output.

    Raises:
        InputError: the folder is missing, incomplete, or of another schema version.
    """
    path = folder / NAME
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; give the output folder of an earlier stage")
    if not path.exists():
        raise InputError(f"{folder}: holds no {NAME}, so it is no stage's output or not complete; run that stage again")
    try:
        manifest = read(json.loads(path.read_text()))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a manifest of this version ({error}); run that stage again") from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise InputError(f"{path}: schema version {manifest.schema_version}, this is {SCHEMA_VERSION}; run it again")
    return manifest


def read(values: dict[str, Any]) -> Manifest:
    """A manifest out of its JSON.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    return Manifest(**{**values, "funnel": [FunnelRow(**row) for row in values["funnel"]]})


def is_nobody(folder: Path) -> bool:
    """Whether a folder only says that there is no such output."""
    return (folder / NAME).exists() and load(folder).record == NOBODY


def base_of(trained: Manifest, usual: ModelConfig) -> ModelConfig:
    """The model that dpo's output was trained from, within the limits and on the device of ``usual``."""
    found = parse(ModelConfig, trained.config["model"], "model") if "model" in trained.config else usual
    return replace(usual, id=found.id, revision=found.revision, persona_role=found.persona_role)


def count_reasons(dropped: Sequence[Dropped]) -> dict[str, int]:
    """Rows by reason, most frequent first."""
    return dict(Counter(row.reason for row in dropped).most_common())


def merge_funnels(funnels: Sequence[Sequence[FunnelRow]]) -> list[FunnelRow]:
    """The rows of several inputs' funnels, each stage once, in the order in which they ran."""
    rows = {row.stage: row for funnel in sorted(funnels, key=len, reverse=True) for row in funnel}
    return list(rows.values())


def in_round(stage: str, upstream: Sequence[FunnelRow]) -> str:
    """The stage's name in a funnel: its own, or ``sample-2`` where it ran upstream, in an earlier round, as well."""
    before = sum(row.stage.partition("-")[0] == stage for row in upstream)
    return f"{stage}-{before + 1}" if before else stage


def folder_digest(folder: Path) -> str:
    """sha256 over names and contents of all files but those `APART`."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in APART:
            total.update(str(path.relative_to(folder)).encode() + b"\0")
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


@lru_cache
def code_version() -> str:
    """The package's version and a digest of its sources: what is reused was made by this very code."""
    root = Path(rlhi.__file__).parent
    files = sorted(path for pattern in ("*.py", "*.j2") for path in root.rglob(pattern))
    return f"{rlhi.__version__}+{digest(b''.join(path.read_bytes() for path in files))}"


def prompt_hashes(folder: Path) -> dict[str, str]:
    """Digest of each prompt file beside a stage."""
    return {path.name: digest(path.read_bytes()) for path in sorted(folder.glob("*.j2"))}

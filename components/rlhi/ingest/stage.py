"""Turns raw chat logs into conversations with users, personal data removed, and a split.

Reads WildChat (1M and 4.8M, Parquet or JSONL), chat logs of any shape by a mapping, and for the reasoning arm PRM800K
and CHAMP (C.3). A source is read once; what must be known of all rows before one can be judged is a few numbers each,
and the texts wait on disk, so that memory stays flat.

Rows leave in this order: broken ones, users who asked to be forgotten, language, Midjourney prompts (C.1, 1 and 2);
repeated ids; users with too many or too few conversations, counted here, which C.1 leaves open (3 and 4); too many
turns (5); by choice what the source flags as toxic or redacted; exact and by choice near duplicates; by choice all but
a user's newest conversations; evaluation users with too little history; by choice all but some users. Users with
"meaningful feedback" (6) take a model: see `rlhi.classify`.

Ids are hashed with a salt, so that the output holds no id of the source. Users are split by the hash of the source's id
and the seed, so that neither new data nor another order moves anybody; the last conversations of an evaluation user are
held out and feed neither personas nor pairs (3.4).
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pyarrow as pa

from rlhi.artifacts import Output, Stream
from rlhi.config import Secret
from rlhi.errors import InputError
from rlhi.ingest import ledger as ledgers
from rlhi.ingest.config import IngestConfig
from rlhi.ingest.filters import row_filters
from rlhi.ingest.frame import Talk
from rlhi.ingest.identity import UNSALTED, Hasher, read_users
from rlhi.ingest.kinds import Kind
from rlhi.ingest.ledger import SPLITS, Decision, Ledger, decide
from rlhi.ingest.mapping import Mapping
from rlhi.ingest.reader import Source, ahead, open_source, read_frames
from rlhi.ingest.scan import Scan, dropped_rows
from rlhi.ingest.solutions import read_solutions
from rlhi.ingest.spool import Spool
from rlhi.ingest.users import Users, told_apart
from rlhi.near import near_duplicates
from rlhi.pii import redact_column
from rlhi.progress import bar
from rlhi.records import Conversation, schema

log = logging.getLogger("rlhi")
ROWS = schema(Conversation)
NO_SALT = Secret("")
REASONING: tuple[Kind, ...] = ("prm800k", "champ")


def run(
    source: Annotated[str, "Raw logs: a file, a folder or a glob, local or s3://."],
    conversations: Output[Conversation],
    config: IngestConfig,
    salt: Secret = NO_SALT,
    forget: Annotated[str, "File of user ids, one a line, whose rows are left out; the source's ids or ours."] = "",
) -> None:
    """Reads ``source`` and writes the conversations that stay.

    Raises:
        InputError: nothing to read, a kind that is not clear, a wrong schema, or nothing left.
    """
    if config.held_out >= config.eval_min_conversations:
        raise InputError(
            f"ingest.held_out={config.held_out} leaves no history of users with "
            f"ingest.eval_min_conversations={config.eval_min_conversations}; make it smaller"
        )
    forgotten = read_users(forget)
    found = open_source(source, None if config.kind == "auto" else config.kind, _mapping(config))
    log.info("ingest: %s, read as %s", source, found.kind)
    conversations.note("source", f"The logs were read as {found.kind}.")
    if not salt:
        conversations.note("ids", UNSALTED)
    if found.kind in REASONING:
        kept, dropped = read_solutions(found, Hasher(salt), config.max_solutions, config.seed)
        conversations.write(kept, dropped, len(kept) + len(dropped))
    else:
        _ingest(found, Hasher(salt), forgotten, conversations, config)
    if not conversations.kept:
        counts = ", ".join(f"{reason} {n}" for reason, n in conversations.dropped.items())
        raise InputError(f"{source}: none of {conversations.rows_in} conversations is left ({counts}); loosen a filter")


def _mapping(config: IngestConfig) -> Mapping:
    """Where there are no users, what identifies a conversation stands for its user."""
    if config.user_by == "conversation":
        return dataclasses.replace(config.mapping, user=config.mapping.id)
    return config.mapping


def _ingest(
    source: Source, hasher: Hasher, forgotten: frozenset[str], output: Output[Conversation], config: IngestConfig
) -> None:
    users = Users(hasher, forgotten)
    tests = row_filters(config.language, users.forgotten, untimed=config.untimed == "keep")
    spool = Spool(output.file("spool.arrow"))
    with output.stream() as stream:
        scan = Scan(users, hasher, spool, stream, tests)
        frames = read_frames(source, _mapping(config), with_agent=config.user_by == "id+agent")
        ledger = scan.read((told_apart(frame, config.user_by) for frame in frames), source.rows)
        decision = decide(ledger, config, _near(spool, len(ledger), config))
        _drop(stream, ledger, decision)
        redacted = _keep(stream, spool, decision, config)
        stream.count(scan.rows)
    spool.path.unlink()
    output.measure({f"personal_data/{kind}": float(redacted[kind]) for kind in config.redact})
    output.measure(_users_per_split(ledger, decision))


def _near(spool: Spool, rows: int, config: IngestConfig) -> ledgers.NearDuplicates | None:
    """Finds near duplicates among rows of the spool, or None where nobody asked for it."""
    similarity = config.near_duplicates
    if similarity is None:
        return None

    def find(places: np.ndarray) -> np.ndarray:
        mask = np.zeros(rows, bool)
        mask[places] = True
        return near_duplicates(spool.texts(mask), similarity, config.seed)

    return find


def _drop(stream: Stream, ledger: Ledger, decision: Decision) -> None:
    gone = np.flatnonzero(decision.reason)
    for places in np.array_split(gone, 1 + len(gone) // 10_000):
        ids = pa.array([f"{number:016x}" for number in ledger.id[places].tolist()], pa.string())
        stream.drop(dropped_rows(ids, decision.reason[places], ledgers.REASONS))


def _keep(stream: Stream, spool: Spool, decision: Decision, config: IngestConfig) -> Counter[str]:
    """Writes the rows that stay; gives how often each kind of personal data was replaced."""
    mask = decision.reason == 0
    redacted: Counter[str] = Counter()

    def rows() -> Iterator[tuple[pa.Table, Counter[str]]]:
        for batch, places in ahead(spool.chosen(mask)):
            yield _finished(batch, decision.split[places], config)

    with bar("redacting and writing", int(mask.sum())) as shown:
        for table, found in ahead(rows()):
            stream.keep(table)
            redacted += found
            shown.update(table.num_rows)
    return redacted


def _finished(batch: pa.RecordBatch, split: np.ndarray, config: IngestConfig) -> tuple[pa.Table, Counter[str]]:
    """Rows of the spool as rows of `Conversation`."""
    talk = Talk.of(batch["messages"])
    content, found = redact_column(talk.content, config.redact, config.phone_regions)
    listed = ROWS.field("messages").type
    values = pa.StructArray.from_arrays([talk.role, content], fields=list(listed.value_type))
    messages = pa.ListArray.from_arrays(pa.array(talk.starts, pa.int32()), values, type=listed)
    columns = {
        **{name: batch[name] for name in ("id", "user_id", "timestamp", "model", "language")},
        "split": pa.array(SPLITS).take(pa.array(split)),
        "messages": messages,
    }
    return pa.Table.from_arrays([columns[field.name] for field in ROWS], schema=ROWS), Counter(found)


def _users_per_split(ledger: Ledger, decision: Decision) -> dict[str, float]:
    kept = decision.reason == 0
    counts = {
        split: len(np.unique(ledger.user[kept & (decision.split == place)])) for place, split in enumerate(SPLITS)
    }
    return {"users_train": float(counts["train"]), "users_held_out": float(counts["held-out"])}

"""Rows that wait on disk until all have been read: who is dropped depends on rows that come later."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from rlhi.ingest.frame import MESSAGES, TIME, Frame

PIECE_BYTES = 8 << 20
FIELDS = pa.schema(
    [
        ("id", pa.string()),
        ("user_id", pa.string()),
        ("timestamp", TIME),
        ("model", pa.string()),
        ("language", pa.string()),
        ("messages", MESSAGES),
    ]
)


class Spool:
    """A file of Arrow batches, written once and read in the same order. Not compressed: it lives for minutes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._file, FIELDS)

    def add(self, frame: Frame, ids: pa.Array, users: pa.Array) -> None:
        """Rows with the ids that they and their users will have."""
        columns = [ids, users, frame.time, frame.model, frame.language, frame.messages]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=FIELDS))

    def close(self) -> None:
        """Ends writing."""
        self._writer.close()
        self._file.close()

    def chosen(self, mask: np.ndarray) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """The rows for which ``mask`` holds, some megabytes at a time, each with the places of its rows in ``mask``."""
        start, size = 0, 0
        tables: list[pa.Table] = []
        places: list[np.ndarray] = []
        with pa.OSFile(str(self.path), "rb") as file, pa.ipc.open_stream(file) as batches:
            for batch in batches:
                here = np.flatnonzero(mask[start : start + len(batch)])
                tables.append(pa.Table.from_batches([batch.take(pa.array(here))]))
                places.append(start + here)
                start, size = start + len(batch), size + tables[-1].nbytes
                if size > PIECE_BYTES:
                    yield _joined(tables), np.concatenate(places)
                    tables, places, size = [], [], 0
        if tables:
            yield _joined(tables), np.concatenate(places)

    def texts(self, mask: np.ndarray) -> Iterator[str]:
        """All that was said, of each row for which ``mask`` holds."""
        for batch, _ in self.chosen(mask):
            for messages in batch["messages"].to_pylist():
                yield "\n".join(message["content"] for message in messages)


def _joined(tables: Sequence[pa.Table]) -> pa.RecordBatch:
    (batch,) = pa.concat_tables(tables).combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=FIELDS)]
    return batch

"""Makes a dataset with WildChat-1M's schema and proportions, all of it invented: words drawn at random.

What is kept from the real one: the columns (moderation as well, so that a reader shows whether it leaves them on
disk), Snappy with row groups of 1,000, users with a long tail, 2.54 turns and some 5,000 characters a conversation,
half of it English, Midjourney prompts, and a message in 200 that holds an address, a number or a key.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_FILE = 50_000
ROWS_PER_GROUP = 1_000
LANGUAGES = ("English", "Chinese", "Russian", "French", "Spanish")
SHARES = (0.57, 0.19, 0.12, 0.07, 0.05)
MIDJOURNEY = 'As a prompt generator for a generative AI called "Midjourney", you will create image prompts. '
PERSONAL = (
    " write to jane.roe{n}@mail{n}.net",
    " call +1 415 555 2671",
    " host 81.2.69.{n}",
    " key AKIAIOSFODNN7EXAMPL{n}",
)
MODERATED = pa.list_(pa.struct([("flagged", pa.bool_()), ("scores", pa.list_(pa.float64()))]))


def make(folder: Path, rows: int, seed: int = 0) -> None:
    """Writes ``rows`` conversations into ``folder``, in time order, as files of 50,000."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    text = _text(draw)
    owners = _owners(draw, rows)
    for number, start in enumerate(range(0, rows, ROWS_PER_FILE)):
        count = min(ROWS_PER_FILE, rows - start)
        path = folder / f"train-{number:05d}.parquet"
        with pq.ParquetWriter(path, _schema(), compression="snappy") as writer:
            for begin in range(start, start + count, ROWS_PER_GROUP):
                group = owners[begin : min(begin + ROWS_PER_GROUP, start + count)]
                writer.write_table(_rows(draw, text, group, begin))


def _text(draw: np.random.Generator) -> str:
    """Eight million characters of made-up words, frequent ones more often."""
    letters = np.array(list("etaoinshrdlcumwfgypbvk"))
    words = ["".join(draw.choice(letters, size=draw.integers(2, 10))) for _ in range(20_000)]
    ranks = np.minimum(draw.zipf(1.12, size=1_400_000), len(words)) - 1
    breaks = draw.random(len(ranks)) < 0.02
    return "".join(words[rank] + (". " if stop else " ") for rank, stop in zip(ranks, breaks, strict=True))


def _owners(draw: np.random.Generator, rows: int) -> np.ndarray:
    """The user of each row: four rows a user on average, most users with one or two, some with thousands."""
    weights = draw.pareto(1.1, size=max(1, rows // 4)) + 0.05
    return draw.choice(len(weights), size=rows, p=weights / weights.sum())


def _rows(draw: np.random.Generator, text: str, owners: np.ndarray, start: int) -> pa.Table:
    count = len(owners)
    turns = np.minimum(draw.geometric(1 / 2.54, size=count), 60)
    languages = draw.choice(LANGUAGES, size=count, p=SHARES)
    midjourney = draw.random(count) < 0.04
    when = np.datetime64("2023-04-09T00:00:00", "us") + np.arange(start, start + count) * np.timedelta64(30, "s")
    talks = [_talk(draw, text, int(turns[i]), start + i, str(languages[i]), bool(midjourney[i])) for i in range(count)]
    values = {
        "conversation_hash": [f"{start + i:032x}" for i in range(count)],
        "model": ["gpt-3.5-turbo-0613"] * count,
        "timestamp": when.astype(object).tolist(),
        "conversation": talks,
        "turn": turns.tolist(),
        "language": languages.tolist(),
        "openai_moderation": [[{"flagged": False, "scores": [0.1] * 11}] * len(talk) for talk in talks],
        "toxic": [False] * count,
        "redacted": (draw.random(count) < 0.02).tolist(),
        "state": ["Texas"] * count,
        "country": ["United States"] * count,
        "hashed_ip": [f"{owner:064x}" for owner in owners],
        "header": [{"accept-language": "en-US,en;q=0.9", "user-agent": "Mozilla/5.0 (X11; Linux x86_64)"}] * count,
    }
    return pa.Table.from_pydict(values, schema=_schema())


def _talk(
    draw: np.random.Generator, text: str, turns: int, number: int, language: str, midjourney: bool
) -> list[dict[str, object]]:
    lengths = np.exp(draw.normal([[5.2, 7.1]], [[1.2, 0.8]], size=(turns, 2))).astype(int).clip(4, 40_000).ravel()
    starts = draw.integers(0, len(text) - 40_000, size=2 * turns)
    personal = draw.random(2 * turns) < 0.005
    messages: list[dict[str, object]] = []
    for place, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        content = text[start : start + length]
        if midjourney and place == 0:
            content = MIDJOURNEY + content
        if personal[place]:
            content += PERSONAL[place % len(PERSONAL)].format(n=number % 100)
        messages.append(
            {
                "content": content,
                "country": "United States",
                "hashed_ip": None,
                "header": None,
                "language": language,
                "redacted": False,
                "role": "assistant" if place % 2 else "user",
                "state": "Texas",
                "timestamp": None,
                "toxic": False,
                "turn_identifier": number * 100 + place // 2,
            }
        )
    return messages


def _schema() -> pa.Schema:
    header = pa.struct([("accept-language", pa.string()), ("user-agent", pa.string())])
    when = pa.timestamp("us", tz="UTC")
    turn = pa.struct(
        [
            ("content", pa.string()),
            ("country", pa.string()),
            ("hashed_ip", pa.string()),
            ("header", header),
            ("language", pa.string()),
            ("redacted", pa.bool_()),
            ("role", pa.string()),
            ("state", pa.string()),
            ("timestamp", when),
            ("toxic", pa.bool_()),
            ("turn_identifier", pa.int64()),
        ]
    )
    return pa.schema(
        [
            ("conversation_hash", pa.string()),
            ("model", pa.string()),
            ("timestamp", when),
            ("conversation", pa.list_(turn)),
            ("turn", pa.int64()),
            ("language", pa.string()),
            ("openai_moderation", MODERATED),
            ("toxic", pa.bool_()),
            ("redacted", pa.bool_()),
            ("state", pa.string()),
            ("country", pa.string()),
            ("hashed_ip", pa.string()),
            ("header", header),
        ]
    )

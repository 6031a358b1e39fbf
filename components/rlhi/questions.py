"""Questions with a closed list of answers: how a model is asked, and how its reply is read.

``choose`` compares the log-probabilities of the answers, so every reply is one of them, and equal ones are null.
``generate`` lets the model write, for engines without log-probabilities. Either way what cannot be read is null.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlhi.artifacts import Output
from rlhi.config import SamplingConfig
from rlhi.engine import Engine, Request, Scores, choose, generate
from rlhi.records import Missing

Method = Literal["choose", "generate"]
YES_NO = ("Yes", "No")
WRITTEN = SamplingConfig(temperature=0, top_p=1, max_tokens=256)  # room for a reason beside the answer
UNREAD = "unread.jsonl"
MARKS = r"[ \t\"'“”‘’«»*_`\[\]]*"


@dataclass(frozen=True, slots=True)
class Said:
    """What a model said to the question ``key``: one of the names or null, and its own words if it wrote any.

    ``missing`` says why it gave no answer at all; null where it gave one, or was not asked.
    """

    key: str
    name: str | None
    text: str
    missing: Missing | None = None


def ask(
    requests: Sequence[Request],
    names: Sequence[str],
    engine: Engine,
    method: Method,
    prior: Sequence[float] | None = None,
) -> list[Said]:
    """One of ``names`` for each request, in order. ``prior`` is what each choice scores whatever is asked."""
    if method == "generate":
        replies = generate(engine, requests, WRITTEN, 1, 0)
        return [
            Said(request.key, named(reply.text, names), reply.text, reply.missing)
            for request, (reply,) in zip(requests, replies, strict=True)
        ]
    scores = choose(engine, requests, bracketed(names))
    usual = prior or [0.0] * len(names)
    return [_chosen(request.key, names, own, usual) for request, own in zip(requests, scores, strict=True)]


def bracketed(names: Iterable[str]) -> list[str]:
    """The names as the prompts ask for them."""
    return [f"[[{name}]]" for name in names]


def best(names: Sequence[str], scores: Sequence[float], prior: Sequence[float]) -> str | None:
    """The name with the highest score above its prior; null where the best two are equal."""
    above = [score - usual for score, usual in zip(scores, prior, strict=True)]
    first, second = sorted(above, reverse=True)[:2]
    return names[above.index(first)] if first > second else None


def named(text: str, names: Sequence[str]) -> str | None:
    """The name that a written reply gives, or null.

    The last name in double brackets counts, or else the last in single ones. Without brackets a name must stand by
    itself, at the start of a line or after a colon and before punctuation or the end of the line, and no other name may
    be in the reply: a name inside a sentence can be denied by it ("this is no positive feedback").
    """
    for opening, closing in ((r"\[\[", r"\]\]"), (r"\[", r"\]")):
        bracketed = _found(rf"{opening}{MARKS}(NAMES)[.]?{MARKS}{closing}", text, names)
        if bracketed:
            return bracketed[-1]
    alone = set(_found(rf"(?:^|:){MARKS}(NAMES){MARKS}(?=$|[.,;:!(]|\s[-–—]\s)", text, names))
    mentioned = {name for name in names if re.search(rf"(?<!\w){_pattern(name)}(?!\w)", text)}
    return alone.pop() if alone and len(alone | mentioned) == 1 else None


def keep_unread(output: Output[Any], said: Iterable[Said]) -> None:
    """Writes the replies that could not be read beside the output, word for word."""
    unread = [{"id": each.key, "reply": each.text} for each in said if each.name is None and each.text]
    if unread:
        lines = (json.dumps(row, ensure_ascii=False) for row in unread)
        output.file(UNREAD).write_text("".join(f"{line}\n" for line in lines))


def _chosen(key: str, names: Sequence[str], scores: Scores, prior: Sequence[float]) -> Said:
    if isinstance(scores, str):
        return Said(key, None, "", scores)
    return Said(key, best(names, scores, prior), "")


def _found(pattern: str, text: str, names: Sequence[str]) -> list[str]:
    """The names that ``pattern`` finds, with ``NAMES`` standing for any of them, in the order of the text."""
    each = "|".join(f"(?:{_pattern(name)})" for name in names)
    matches = re.finditer(pattern.replace("NAMES", each), text, re.IGNORECASE | re.MULTILINE)
    return [next(name for name in names if re.fullmatch(_pattern(name), match[1], re.IGNORECASE)) for match in matches]


def _pattern(name: str) -> str:
    """``name`` with any white space between its words, and with its hyphens written in any way or not at all."""
    return r"\s+".join(re.escape(word).replace(r"\-", "[-\u2010\u2011 ]?") for word in name.split())

"""The items of the pairwise suites as they are published, and the published answers that are to be beaten."""

import dataclasses
from collections.abc import Mapping, Sequence

from rlhi.benchmark.items import Format, Item, Row, text
from rlhi.errors import InputError
from rlhi.records import Suite
from rlhi.rows import rows_of
from rlhi.sources import list_files, uris


def _alpaca_eval(row: Row, number: int, seed: int) -> Item:
    """A row of a model's outputs; that model is to be beaten. Items are numbered from 0, as published."""
    del seed
    dataset = row.get("dataset")
    key = f"alpaca-eval/{number - 1}"
    return Item("alpaca-eval", key, None if dataset is None else str(dataset), text(row, "instruction"), _output(row))


def _output(row: Row) -> str:
    found = row["output"]
    if not isinstance(found, str):
        raise ValueError(f"output={found!r} is no text")
    return found


def _arena_hard(row: Row, number: int, seed: int) -> Item:
    del number, seed
    return Item("arena-hard", f"arena-hard/{text(row, 'uid')}", None, text(row, "prompt"), "")


FORMATS: Mapping[Suite, Format] = {
    "alpaca-eval": Format(frozenset({"instruction", "output"}), _alpaca_eval),
    "arena-hard": Format(frozenset({"uid", "prompt"}), _arena_hard),
}


def with_opponent(items: Sequence[Item], source: str) -> list[Item]:
    """``items`` with the answers to beat of Arena-Hard's questions out of ``source``, URIs with commas between them.

    Raises:
        InputError: a row that is no answer, or a question that none of them answers.
    """
    if not any(item.suite == "arena-hard" for item in items):
        return list(items)
    known = _answers(source)
    lacking = [item.id for item in items if item.suite == "arena-hard" and item.id not in known]
    if lacking:
        raise InputError(
            f"opponent_answers={source!r}: {len(lacking)} questions have no answer to beat there, the first is "
            f"{lacking[0]}; give a file of the baseline's answers, or a model: pairwise.opponent"
        )
    return [dataclasses.replace(item, gold=known.get(item.id, item.gold)) for item in items]


def _answers(source: str) -> dict[str, str]:
    known: dict[str, str] = {}
    for file in [file for uri in uris(source) for file in list_files(uri)]:
        for number, row in rows_of(file):
            where = f"{file.path}: row {number}"
            try:
                key, answer = _answer(row)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError):
                raise InputError(
                    f"{where} is no answer to Arena-Hard; it needs uid and messages (or question_id and choices), as "
                    "published, or uid and output"
                ) from None
            if known.setdefault(f"arena-hard/{key}", answer) != answer:
                raise InputError(f"{where}: uid={key!r} has another answer before; give those of one model")
    return known


def _answer(row: object) -> tuple[str, str]:
    """Id and answer of a row of a published file, of either form that was, or of the plain one."""
    if not isinstance(row, Mapping):
        raise TypeError("no object")
    key = text(row, "uid" if "uid" in row else "question_id")
    if "messages" in row:
        last = row["messages"][-1]["content"]
        found = last["answer"] if isinstance(last, Mapping) else last
    elif "choices" in row:
        found = row["choices"][0]["turns"][-1]["content"]
    else:
        found = row["output"]
    if not isinstance(found, str):
        raise TypeError("no text")
    return key, found

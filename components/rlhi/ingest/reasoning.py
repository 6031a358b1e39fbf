"""Conversations of simulated users who point at the first wrong step of a mathematical solution (C.3).

A user asks a problem, the assistant answers with a solution of the data set, and the user says where it first goes
wrong, in one of several wordings by seed and id, and nothing about how to mend it. Where the final answer is surely
right (`same_answer`), the user says so too. Each conversation is a user's own: there are no personas here.

PRM800K, phase 2: a labeller stops at the first error, so the solution is ``pre_generated_steps`` and not what was
labelled, and the step is the one whose text was rated -1. Every step is put on one line, so that the number that the
user names counts lines. Phase 1 has no solutions that were left as the model wrote them.

CHAMP (beyond the paper): people marked the first wrong span in solutions of four models. The user quotes how the span
begins, since nothing numbers the steps. Half of the solutions were written with hints that the user does not repeat.
Whether an answer is right is not annotated: it is read from the one sentence in which each model then said it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from rlhi.config import digest
from rlhi.ingest.answers import last_boxed, same_answer
from rlhi.records import Conversation, Dropped, Message, Reason
from rlhi.render import prompt

QUOTED = 80  # characters of a wrong step that are quoted
_TAIL = re.compile(r"(?:^|\n)\s*# Answer\s+(\S.*)$", re.DOTALL)
_SAID = (r"(yes|no)\b", r"there (?:are|is) (?:exactly )?(\S+) ", r".*\b(?:is|are)(?: equal to)? (.+)")
_REMARK = re.compile(r" \(i\.e\..*\)$| is the only possible value$")  # what CHAMP says of an answer beside the answer


def from_prm800k(row: object, place: str, seed: int = 0) -> Conversation | Dropped:
    """One row of PRM800K, or why it is none; ``place`` (file and row) names what is dropped. Never raises."""
    question, label = _fields(row, "question"), _fields(row, "label")
    if question is None or label is None or not isinstance(row, Mapping):
        return Dropped(place, "not_a_record")
    reason = _unusable(row, label)
    if reason is not None:
        return Dropped(place, reason)
    problem, steps = _text(question.get("problem")), _texts(question.get("pre_generated_steps"))
    if problem is None or steps is None:
        return Dropped(place, "not_a_record")
    wrong = _first_wrong(label.get("steps"), steps)
    if wrong is None:
        return Dropped(place, "no_wrong_step")
    given, truth = _text(question.get("pre_generated_answer")), _text(question.get("ground_truth_answer"))
    right = given is not None and truth is not None and same_answer(given, truth)
    return _conversation(problem, "\n".join(map(_readable, steps)), f"step {wrong + 1}", right, seed)


def from_champ(data: object, place: str, seed: int = 0) -> Iterator[Conversation | Dropped]:
    """Every annotated solution of CHAMP's one JSON object, or why it is none, in the file's order. Never raises."""
    problems = _fields(data, "problems")
    if problems is None:
        yield Dropped(place, "not_a_record")
        return
    for name, problem in problems.items():
        for key in _fields(problem, "fws_annotations") or {}:
            yield _champ(problem, key, f"{place}:{_writable(name)}:{_writable(key)}", seed)


def _champ(problem: Mapping[str, Any], key: str, place: str, seed: int) -> Conversation | Dropped:
    annotation = _fields(problem["fws_annotations"], key)
    asked, solution = _text(problem.get("_text")), _text((annotation or {}).get("text"))
    if annotation is None or asked is None or solution is None:
        return Dropped(place, "not_a_record")
    start, end = annotation.get("start_idx"), annotation.get("end_idx")
    if start is None and end is None:
        return Dropped(place, "no_error_found")
    span = _span(solution, start, end)
    if span is None:
        return Dropped(place, "no_wrong_step")
    right = _states(_summary(problem, key), _text(problem.get("_answer")))
    named = f"the part that begins with “{_quote(span, solution)}”"
    return replace(_conversation(asked, solution, named, right, seed), model=_text(annotation.get("author")))


def _conversation(problem: str, solution: str, named: str, right: bool, seed: int) -> Conversation:
    """The id is that of problem and solution, so that a solution that was labelled twice is one."""
    key = digest(f"{problem}\0{solution}")
    wording = int(digest(f"wording {seed} {key}"), 16)
    comment = prompt("rlhi.ingest", "reasoning_comment.j2", place=named, answer_is_right=right, wording=wording)
    said = (
        Message("user", prompt("rlhi.ingest", "reasoning_request.j2", problem=problem)),
        Message("assistant", solution),
        Message("user", comment),
    )
    return Conversation(key, key, None, None, "English", "train", said)


def _unusable(row: Mapping[str, Any], label: Mapping[str, Any]) -> Reason | None:
    if row.get("is_quality_control_question"):
        return "quality_control"
    if row.get("is_initial_screening_question"):
        return "screening"
    return None if label.get("finish_reason") == "found_error" else "no_error_found"


def _first_wrong(labelled: object, steps: list[str]) -> int | None:
    """Index of the first step whose text was rated -1; the labelled step's own place wins where a text repeats."""
    for place, step in enumerate(labelled if isinstance(labelled, list) else []):
        completions = step.get("completions") if isinstance(step, Mapping) else None
        for completion in completions if isinstance(completions, list) else []:
            if not isinstance(completion, Mapping) or completion.get("rating") != -1:
                continue
            text = _line(_text(completion.get("text")) or "")
            found = [index for index, own in enumerate(steps) if _line(own) == text]
            if place in found or len(found) == 1:
                return place if place in found else found[0]
    return None


def _readable(step: str) -> str:
    """A step on one line, or two: ``# Answer`` and what follows it become a sentence."""
    tail = _TAIL.search(step)
    if tail is None:
        return _line(step)
    answer = _line(tail[1])
    inner = answer.removeprefix("$").removesuffix("$") if answer.startswith("$") else answer
    said = answer if re.search(r"(?<!\\)\$", inner) else "$\\boxed{" + inner + "}$"
    return "\n".join(filter(None, [_line(step[: tail.start()]), f"The final answer is {said}."]))


def _line(text: str) -> str:
    return " ".join(text.split())


def _span(solution: str, start: object, end: object) -> str | None:
    """What was marked; null where the marks are none or mark nothing."""
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end <= len(solution):
        return None
    return solution[start:end].strip() or None


def _quote(span: str, solution: str) -> str:
    """The beginning of a wrong span, whole words on one line; all of it where the beginning also stands elsewhere."""
    words = span.split()
    kept = next((n for n in range(1, len(words)) if len(" ".join(words[: n + 1])) > QUOTED), len(words))
    short = " ".join(words[:kept])
    if kept == len(words) or _line(solution).count(short) > 1:
        return " ".join(words)
    return f"{short} …"


def _summary(problem: Mapping[str, Any], key: str) -> str | None:
    """The last message of the conversation in which the solution was written."""
    conversation = _fields(_fields(problem, "conversations"), key)
    turns = conversation.get("messages") if conversation else None
    last = turns[-1] if isinstance(turns, list) and turns else None
    return _text(last.get("text")) if isinstance(last, Mapping) else None


def _states(sentence: str | None, truth: str | None) -> bool:
    """Whether a sentence surely states the answer: in a box, as yes or no, as a count, or at its end."""
    if sentence is None or truth is None:
        return False
    found = (re.match(form, sentence, re.IGNORECASE | re.DOTALL) for form in _SAID)
    said = [last_boxed(sentence), *(match[1] for match in found if match)]
    return any(same_answer(each, _REMARK.sub("", truth)) for each in said if each is not None)


def _fields(node: object, name: str) -> Mapping[str, Any] | None:
    inner = node.get(name) if isinstance(node, Mapping) else None
    return inner if isinstance(inner, Mapping) else None


def _text(value: object) -> str | None:
    """Text that is not blank."""
    return _writable(value) if isinstance(value, str) and value.strip() else None


def _texts(value: object) -> list[str] | None:
    texts = [_text(each) for each in value] if isinstance(value, list) else []
    return [text for text in texts if text is not None] if texts and None not in texts else None


def _writable(text: str) -> str:
    """Half of a character that was cut in two cannot be written again."""
    return text if text.isascii() else text.encode(errors="replace").decode()

r"""The reasoning suites as they are published, and GSM8K: rows to items, and replies to grades (3.4, Table 4).

Prompts are zero-shot and in our own words, and end with the published form of the final answer: ``\boxed{}`` for
mathematics, "The answer is (X)" for choices. lm-evaluation-harness shows solved problems before one of GSM8K's and of
MMLU-Pro's, as to base models; an instruct model is asked by its chat template, and the paper speaks of no examples.

- minerva: the 272 problems of MIT's OpenCourseWare (Lewkowycz et al., 2022); the gold is what the solution boxes. The
  harness has MATH under that name, not this set. Numbers agree to a relative 1e-5, as in the published grading; below
  1e-8 that took what was within one percent, by the way its tolerances are written, and ours does not.
- olympiadbench: the 675 English text-only problems of mathematics with a final answer (He et al., 2024); not in the
  harness. Numbers agree to 1e-8, or to the problem's own ``error``, as in the published grading; answers of several
  parts agree in any order.
- gpqa: choices in an order drawn from the seed and the item's id, so that it is the same for every model and whatever
  else is asked; in the harness it hangs on the process.
- mmlu-pro: up to ten choices, as they are.
- gsm8k: the number after ####; the harness compares strings, we compare numbers.
"""

import random
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from rlhi.benchmark.checking import Checker, Comparison
from rlhi.benchmark.extraction import chosen_letter, final_answer
from rlhi.benchmark.items import Answered, Format, Item, Row, text, texts
from rlhi.ingest.answers import last_boxed
from rlhi.records import Grade, Suite
from rlhi.render import prompt

GPQA_WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
MMLU_PRO = ascii_uppercase[:10]  # letters of choices, read as published even where an item has fewer


def grade(answered: Sequence[Answered], checker: Checker) -> list[Grade]:
    """A grade for each answer, in order: 1 where right, 0 where wrong, null where nothing could be read or compared."""
    read = [_read(each) for each in answered]
    worked = [(each, final) for each, final in zip(answered, read, strict=True) if final and not each.item.letters]
    same = checker.check([_comparison(each.item, final) for each, final in worked])
    return [_graded(each, final, same) for each, final in zip(answered, read, strict=True)]


def _read(answered: Answered) -> str | None:
    letters = answered.item.letters
    return chosen_letter(answered.text, letters) if letters else final_answer(answered.text)


def _comparison(item: Item, final: str) -> Comparison:
    return Comparison(item.gold, final, item.absolute, item.relative)


def _graded(answered: Answered, final: str | None, same: Mapping[Comparison, bool | None]) -> Grade:
    item = answered.item
    right: bool | None = None
    if final is not None:
        right = final == item.gold if item.letters else same[_comparison(item, final)]
    return Grade(
        suite=item.suite,
        item_id=item.id,
        category=item.category,
        sample=answered.sample,
        gold=item.gold,
        answer=answered.text,
        finish_reason=answered.finish_reason,
        read=final,
        score=None if right is None else float(right),
    )


def _minerva(row: Row, number: int, seed: int) -> Item:
    del seed
    gold = last_boxed(text(row, "solution"))
    if not gold:
        raise ValueError("solution boxes no answer")
    asked = prompt("rlhi.benchmark", "problem.j2", problem=text(row, "problem"), context=None, unit=None, several=False)
    return Item("minerva", f"minerva/{row.get('idx', number)}", text(row, "type"), asked, gold, "", 0.0, 1e-5)


def _olympiadbench(row: Row, number: int, seed: int) -> Item:
    del number, seed
    unit = row.get("unit")
    asked = prompt(
        "rlhi.benchmark",
        "problem.j2",
        problem=text(row, "question"),
        context=row.get("context"),
        unit=None if unit is None else unit.strip("$"),
        several=row.get("is_multiple_answer") is True,
    )
    error = row.get("error")
    return Item(
        suite="olympiadbench",
        id=f"olympiadbench/{row['id']}",
        category=text(row, "subfield"),
        prompt=asked,
        gold=", ".join(texts(row, "final_answer")),
        absolute=1e-8 if error is None else float(error),
    )


def _gsm8k(row: Row, number: int, seed: int) -> Item:
    del seed
    _, mark, gold = text(row, "answer").rpartition("####")
    if not mark or not gold.strip():
        raise ValueError("answer has no number after ####")
    asked = prompt(
        "rlhi.benchmark", "problem.j2", problem=text(row, "question"), context=None, unit=None, several=False
    )
    return Item("gsm8k", f"gsm8k/{row.get('idx', number)}", None, asked, gold.strip())


def _gpqa(row: Row, number: int, seed: int) -> Item:
    key = f"gpqa/{row.get('Record ID', number)}"
    right = text(row, "Correct Answer").strip()
    choices = [right, *(text(row, name).strip() for name in GPQA_WRONG)]
    order = random.Random(f"{seed} {key}").sample(range(len(choices)), len(choices))
    letters = ascii_uppercase[: len(choices)]
    asked = _with_choices(text(row, "Question"), [choices[place] for place in order])
    return Item("gpqa", key, row.get("High-level domain"), asked, letters[order.index(0)], letters)


def _mmlu_pro(row: Row, number: int, seed: int) -> Item:
    del number, seed
    choices = texts(row, "options")
    gold = text(row, "answer")
    if gold not in ascii_uppercase[: len(choices)]:
        raise ValueError(f"answer={gold!r} is none of the {len(choices)} options")
    asked = _with_choices(text(row, "question"), choices)
    return Item("mmlu-pro", f"mmlu-pro/{row['question_id']}", text(row, "category"), asked, gold, MMLU_PRO)


def _with_choices(question: str, choices: Sequence[str]) -> str:
    numbered = list(zip(ascii_uppercase, choices, strict=False))
    return prompt("rlhi.benchmark", "choices.j2", question=question.strip(), choices=numbered)


FORMATS: Mapping[Suite, Format] = {
    "minerva": Format(frozenset({"problem", "solution", "type"}), _minerva),
    "olympiadbench": Format(frozenset({"question", "final_answer", "subfield", "id"}), _olympiadbench),
    "gpqa": Format(frozenset({"Question", "Correct Answer", *GPQA_WRONG}), _gpqa),
    "mmlu-pro": Format(frozenset({"question", "options", "answer", "category", "question_id"}), _mmlu_pro),
    "gsm8k": Format(frozenset({"question", "answer"}), _gsm8k, without=frozenset({"options", "final_answer"})),
}

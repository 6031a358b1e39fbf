"""The final answer of a reply, as the prompts ask for it; null where it is not there. Nothing is guessed."""

import re

from rlhi.ingest.answers import last_boxed

STATED = re.compile(
    r"^.*final answer(?: is)?+[ \t:*]*+(.+?)[ \t.*]*(?:I hope it is correct\.?\s*)?$", re.IGNORECASE | re.MULTILINE
)


def final_answer(text: str) -> str | None:
    r"""What the last ``\boxed{}`` holds or else what stands behind the last "final answer is", to the end of its line.

    math-verify would go on to the last formula or number of the reply, whatever it stands for: a reply that was cut
    would be graded by what it happened to end with.
    """
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed.strip() or None
    stated = STATED.findall(text)
    return stated[-1].strip() or None if stated else None


def chosen_letter(text: str, letters: str) -> str | None:
    """The letter that a reply chooses among ``letters``, by the three published rules of MMLU-Pro, in their order.

    "answer is (X)", the first; "answer: X", the last of the first line that has any; and the last letter that stands by
    itself, wherever that is. Where none finds one, the published script draws a letter; here it is null. The
    lm-evaluation-harness knows the first rule alone.
    """
    one = f"[{letters}]"
    found = re.search(rf"answer is \(?({one})\)?", text) or _last_of_a_line(rf"[aA]nswer:\s*({one})", text)
    if found is not None:
        return found[1]
    alone = re.findall(rf"\b({one})\b", text)
    return alone[-1] if alone else None


def _last_of_a_line(pattern: str, text: str) -> re.Match[str] | None:
    """The last match that begins in the line of the first. (One pattern for this takes minutes on a very long line.)"""
    found = list(re.finditer(pattern, text))
    if not found:
        return None
    end = text.find("\n", found[0].start())
    return [each for each in found if end < 0 or each.start() < end][-1]

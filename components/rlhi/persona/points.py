"""Reads a written persona: at most so many points, without introductions, remarks and refusals."""

import re

from rlhi.records import Reason

BULLET = re.compile(r"^(?:[-•–]\s*|\*\s+|\d+[.)]\s+)")
PLACEHOLDERS = re.compile(r"(?:[\W_]*\[[A-Z]+\])+[\W_]*")
HEADING = re.compile(r"^(?:#+\s.*|\*\*[^*]+\*\*|\[The (?:Start|End) of .*|.*:\**)$")
REFUSAL = re.compile(
    r"""
      i'?m\s(?:very\s|so\s)?sorry | sorry\b | i\sapologi[sz]e | unfortunately,?\s(?:i|the|there|it)\b
    | as\san?\s(?:ai|large\slanguage\smodel|language\smodel)\b
    | i\s(?:cannot|can't|could\snot|couldn't|am\sunable|am\snot\sable|do\snot\shave|don't\shave)\b
    | i'm\s(?:unable|not\sable|(?:here|ready|glad|happy)\sto\s(?:help|assist))\b
    | i(?:'m|\sam)\s(?:not\s)?an?\s(?:\w+\s){0,3}(?:ai|assistant|chatbot|language\smodel)\b
    | (?:based\son\s.{0,60},\s)?
      (?: it\sis\s(?:not\spossible|impossible|difficult|hard)\sto\b
        | (?:there\s(?:is|are|was|were)\s)?
          (?:not\senough|no|insufficient|too\sfew|too\slittle)\s(?:clear\s|specific\s|explicit\s)?
          (?:information|data|context|evidence|indications?|messages|preferences?)
          (?:\s(?:to|in|about|on|from|can|could|is|are|was|were)\b | [.]?$)
      )
    """,
    re.IGNORECASE | re.VERBOSE,
)


def points(text: str, most: int) -> tuple[str, Reason | None]:
    """The first ``most`` points that say something, each as ``- point``, repeated ones once; and why there are none.

    Where any line has a bullet or a number, lines without are introductions and remarks, and no points. A point that
    refuses is none; a text without bullets that refuses anywhere is a refusal.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip("-*•–_= \t")]
    listed = [BULLET.sub("", line) for line in lines if BULLET.match(line)]
    said = [line for line in listed or lines if not HEADING.match(line)]
    refused = [line for line in said if REFUSAL.match(line.replace("’", "'"))]
    if refused and (not listed or len(refused) == len(said)):
        return "", "refused_persona"
    kept = list(dict.fromkeys(line for line in said if line not in refused))[:most]
    return "\n".join(f"- {line}" for line in kept), None if kept else "empty_persona"


def without_placeholders(persona: str) -> str:
    """The persona without points of which redaction left nothing but placeholders."""
    return "\n".join(line for line in persona.splitlines() if not PLACEHOLDERS.fullmatch(line))

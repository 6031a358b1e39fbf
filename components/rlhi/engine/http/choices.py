"""Which of some given answers a model chose, and by how much.

The answer is followed token by token. Where two choices part, the log-probabilities of both sides are known as far as
the server tells them: the likeliest twenty tokens. A choice scores the sum over its tokens up to the one that sets it
apart from the answer; the answer itself, up to the one that sets it apart from all others. So the choices need not
differ in their first token, and the model's tokenizer need not be known.
"""

import math
import re
from collections.abc import Sequence

from rlhi.engine.http.wire import Said, Token

CHOSEN, OTHER = 0.0, -1.0  # where only the choice is known: as the scripted engine has it


def scores(said: Said, choices: Sequence[str]) -> list[float]:
    """A score for each choice, in nats. All are equal where the answer is none of them: nothing is chosen then.

    Without log-probabilities, or where the answer says more than the choice, 0 for the one that it names last and -1
    for the others: which, and not by how much.
    """
    chosen = named(said.text, choices)
    followed = None if said.tokens is None or chosen is None else _followed(said.tokens, chosen, choices)
    if followed is not None:
        return followed
    whole = said.finish_reason == "stop"  # of one that was cut, what it would have named last is not known
    return [CHOSEN if whole and choice == chosen else OTHER for choice in choices]


def named(text: str, choices: Sequence[str]) -> str | None:
    """The choice that ``text`` names last; null where it names none."""
    ends = {choice: max((match.end() for match in re.finditer(_whole(choice), text)), default=0) for choice in choices}
    last = max(choices, key=lambda choice: ends[choice])
    return last if ends[last] else None


def _followed(tokens: Sequence[Token], chosen: str, choices: Sequence[str]) -> list[float] | None:
    """Scores along the tokens of the choice that was made; null where the answer does not begin with it."""
    open_ways = list(choices)
    found: dict[str, float] = {}
    before, total = "", 0.0
    for token in tokens:
        after = (before + token.text).lstrip()
        if not _on_way(after, chosen) or not token.others:
            return None
        for choice in [each for each in open_ways if not _on_way(after, each)]:
            found[choice] = total + _aside(token, before, choice, chosen)
            open_ways.remove(choice)
        before, total = after, total + token.logprob
        if open_ways == [chosen]:
            return [total if choice == chosen else found[choice] for choice in choices]
    return None


def _on_way(text: str, choice: str) -> bool:
    return choice.startswith(text) or re.match(_whole(choice), text) is not None


def _whole(choice: str) -> str:
    """Matches the choice where it is no part of a word: "m" is not in "am"."""
    start, end = (r"\b" if re.match(r"\w", side) else "" for side in (choice[0], choice[-1]))
    return f"{start}{re.escape(choice)}{end}"


def _aside(token: Token, before: str, choice: str, chosen: str) -> float:
    """The log-probability of going ``choice``'s way in place of ``token``, which goes ``chosen``'s.

    Where none of the tokens that the server tells goes there, that of the least likely of them: it is at most that.
    """
    ways = [
        logprob
        for text, logprob in token.others.items()
        if text.strip() and _on_way((before + text).lstrip(), choice) and not _on_way((before + text).lstrip(), chosen)
    ]
    if not ways:
        return min(token.others.values())
    most = max(ways)
    return most + math.log(sum(math.exp(logprob - most) for logprob in ways))

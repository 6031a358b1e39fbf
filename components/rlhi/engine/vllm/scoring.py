"""Choices, scored as the end of the prompt itself.

vLLM tells the log-probability of each token of a prompt, but by itself computes all of such a prompt anew and holds a
row of logits for each of its tokens. So each prompt is computed once, by a request of its own, and the requests that
have a choice at its end are told to read the cache: what is left to them are the choice and a part of a block. Of what
is read nothing is told. Choices that begin alike read each other's first tokens, so each token is known by the choice
that was computed first; where none was, as the prompt was asked before, they are all computed anew.

Structured outputs would tell the probabilities among what is allowed, which is another thing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rlhi.engine.vllm.replica import Drawn, Job

WHOLE = -1  # the number of the request that computes a prompt for its choices
Run = Callable[[Iterator[list[Job]]], Iterable[Drawn]]
Known = dict[tuple[int, ...], float]


def scores(
    run: Run, prompts: Iterable[tuple[int, list[int]]], ends: Sequence[list[int]], *, anew: bool = False
) -> Iterator[tuple[int, list[float]]]:
    """For each prompt, which comes with its place, the log-probabilities in nats of the choices behind it.

    ``ends`` are the choices' tokens; ``run`` gives what jobs give, those of a list together. In any order.
    """
    known: dict[int, Known] = defaultdict(dict)
    answered: Counter[int] = Counter()
    again: list[tuple[int, list[int]]] = []
    for drawn in run(scoring(place, prompt, ends, anew=anew) for place, prompt in prompts):
        if drawn.number == WHOLE:
            continue
        place, end = drawn.job.place, ends[drawn.number]
        known[place] |= _told(drawn, end)
        answered[place] += 1
        if answered[place] == len(ends):
            own = known.pop(place)
            if all(tuple(each[: i + 1]) in own for each in ends for i in range(len(each))):
                yield place, [sum(own[tuple(each[: i + 1])] for i in range(len(each))) for each in ends]
            else:
                again.append((place, drawn.job.prompt[: -len(end)]))
    if again:
        yield from scores(run, again, ends, anew=True)


def scoring(place: int, prompt: list[int], ends: Sequence[list[int]], *, anew: bool = False) -> list[Job]:
    """The prompt by itself, and then with each of the choices at its end; or only these, computed ``anew``."""
    whole = [] if anew else [Job(place, prompt, range(WHOLE, WHOLE + 1), _params(None))]
    choices = [Job(place, prompt + end, range(k, k + 1), _params(anew)) for k, end in enumerate(ends)]
    return whole + choices


def _params(anew: bool | None) -> Any:
    """One token, since none is not to be had; with the log-probabilities of the prompt, unless ``anew`` is null."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0,
        max_tokens=1,
        prompt_logprobs=None if anew is None else 0,
        skip_reading_prefix_cache=bool(anew),
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _told(drawn: Drawn, end: list[int]) -> Known:
    """The log-probabilities of the choice's tokens, by the choice up to them; of those that were computed."""
    rows = (drawn.rows or [])[-len(end) :]
    first = max(0, drawn.cached - (len(drawn.job.prompt) - len(end)) + 1)  # each is predicted by the token before it
    return {tuple(end[: i + 1]): rows[i] for i in range(first, len(end))}

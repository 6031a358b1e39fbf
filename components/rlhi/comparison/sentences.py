"""What a comparison shows in sentences: the conclusion, how each arm differs, and what speaks against believing it."""

from collections.abc import Iterator, Sequence

from rlhi.comparison.compare import Comparison
from rlhi.comparison.glance import Glance
from rlhi.comparison.lengths import Length
from rlhi.comparison.methods import BASE
from rlhi.evaluate.differences import Difference
from rlhi.evaluate.headline import FEW_USERS, MODES, OPPONENTS, UNSTEADY, p_value, points
from rlhi.evaluate.winrates import ALL, WinRate
from rlhi.page import counted, percent

LONGER = 1.2  # by which an arm's answers are long enough to win for that
JUDGE = "o3"  # the paper's


def conclusion(found: Comparison, arms: Sequence[Glance], headline: WinRate | None) -> tuple[str, str]:
    """The sentence that the page leads with, and what it stands on."""
    if headline is None:
        return "No win rate was measured, so no arm is shown to please users more than another.", ""
    where = f"{headline.metric}, {MODES[headline.mode]}, against {OPPONENTS[headline.opponent]}"
    held = [each for each in arms if each.apart is not None and each.apart.difference is not None]
    if not held:
        return f"Nothing is held against {found.baseline}: no other arm was judged on turns of its evaluation.", ""
    largest = max(held, key=lambda each: abs(_difference(each)))
    return f"{_verdict(found, held)}.", f"The largest difference: {_measured(largest)} ({where})."


def sentences(arms: Sequence[Glance]) -> list[str]:
    """How each arm differs from the baseline on the comparison that the page leads with."""
    return [f"{_sentence(each, each.apart)}." for each in arms if each.apart is not None]


def cautions(
    found: Comparison, arms: Sequence[Glance], headline: WinRate | None, lengths: Sequence[Length]
) -> list[str]:
    """What speaks against reading much into the figures, and what must not be compared."""
    return [
        *_of_the_paper(found, arms),
        *_of_the_judge(found, arms, headline),
        *_of_the_users(found),
        *_of_the_turns(found),
        *_of_the_lengths(lengths),
        *_of_the_data(arms),
    ]


def _verdict(found: Comparison, held: Sequence[Glance]) -> str:
    better = [each.arm.name for each in held if each.shown and _difference(each) > 0]
    worse = [each.arm.name for each in held if each.shown and _difference(each) < 0]
    if not better and not worse:
        return f"No arm is shown to do better or worse than {found.baseline}"
    parts = [f"{_and(names)} {said} than {found.baseline}" for names, said in _said(better, worse) if names]
    rest = len(held) - len(better) - len(worse)
    return "; ".join([*parts, f"of {counted(rest, 'other arm')} no difference is shown"] if rest else parts)


def _said(better: Sequence[str], worse: Sequence[str]) -> list[tuple[Sequence[str], str]]:
    return [
        (better, "does better" if len(better) == 1 else "do better"),
        (worse, "does worse" if len(worse) == 1 else "do worse"),
    ]


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _difference(each: Glance) -> float:
    return 0.0 if each.apart is None or each.apart.difference is None else each.apart.difference


def _measured(each: Glance) -> str:
    apart = each.apart
    if apart is None:
        return each.arm.name
    told = f"{each.arm.name}, {points(apart.difference)} points over {counted(apart.turns, 'turn')}"
    told += f" of {counted(apart.users, 'user')}"
    return told if apart.low is None else f"{told}, 95% interval {points(apart.low)} to {points(apart.high)}"


def _sentence(arm: Glance, each: Difference) -> str:
    if each.difference is None:
        return f"{each.left} and {each.right} have no turn with verdicts on both"
    told = f"{each.left} has {points(each.difference)} points on {each.right} over {counted(each.turns, 'turn')}"
    if each.low is None or each.high is None:
        return f"{told}; one user tells nothing of others"
    shows = "a difference is shown" if arm.shown else "no difference is shown"
    adjusted = "" if arm.holm == each.p else f", {p_value(arm.holm)} with all arms' tests accounted for"
    return f"{told}, 95% interval {points(each.low)} to {points(each.high)}, p {p_value(each.p)}{adjusted}: {shows}"


def _of_the_paper(found: Comparison, arms: Sequence[Glance]) -> Iterator[str]:
    models = sorted({each.arm.model for each in arms if each.arm.model is not None})
    others = [name for name in models if not name.endswith(BASE)]
    if found.arms and (others or found.judge != JUDGE):
        yield (
            f"The paper's figures are of {BASE}, judged by {JUDGE}. These are of {_and(models or ['another model'])}, "
            f"judged by {found.judge}, on other users: set orders and signs of differences beside the paper's, never "
            "the rates."
        )
    if len(models) > 1:
        yield f"The arms start from different models ({', '.join(models)}): differences are of these as well."


def _of_the_judge(found: Comparison, arms: Sequence[Glance], headline: WinRate | None) -> Iterator[str]:
    if found.judge in {each.arm.model for each in arms}:
        yield (
            f"{found.judge} judges answers of models made from itself: a judge so weak or so partial tells that all of "
            "this works, not which arm is better."
        )
    if headline is None:
        return
    key = (headline.opponent, headline.mode, headline.metric, ALL)
    rates = {
        arm.name: rate
        for arm in found.arms
        for rate in arm.rates
        if (rate.opponent, rate.mode, rate.metric, rate.part) == key
    }
    share, name = max(((rate.disagreement or 0.0, name) for name, rate in rates.items()), default=(0.0, ""))
    if share > UNSTEADY:
        yield (
            f"The judge contradicts itself on up to {percent(share)} of turns ({name}) when the order is swapped: its "
            "verdicts carry little information."
        )
    unread = [f"{name} {rate.unread:,}" for name, rate in rates.items() if rate.unread]
    if unread:
        yield f"Verdicts that could not be read are left out, not guessed: {', '.join(unread)} ({headline.metric})."


def _of_the_users(found: Comparison) -> Iterator[str]:
    if found.arms and found.users < FEW_USERS:
        yield f"Only {counted(found.users, 'user')}, too few: intervals are narrower than they should be, or none."


def _of_the_turns(found: Comparison) -> Iterator[str]:
    for arm in found.arms:
        if arm.own_turns > len(found.turns):
            yield (
                f"{arm.name}: {counted(arm.own_turns - len(found.turns), 'turn')} of its {arm.own_turns:,} were not "
                "judged in all evaluations and are left out."
            )
    for opponent in found.changed_opponents:
        yield f"{OPPONENTS[opponent].capitalize()} is not the same in all evaluations: left out."
    if not found.rewards:
        yield "The rewards come from models or settings that differ, so they are left out."


def _of_the_lengths(lengths: Sequence[Length]) -> Iterator[str]:
    long = [each for each in lengths if each.times is not None and each.times >= LONGER]
    if long:
        told = ", ".join(f"{each.arm} {each.times:.1f} times" for each in long)
        yield f"Longer answers than the baseline's ({told}): many judges like that. See the rates at equal length."


def _of_the_data(arms: Sequence[Glance]) -> Iterator[str]:
    for name, told in (("conversations", "conversations"), ("personas", "personas")):
        digests = {each.arm.data[name] for each in arms if name in each.arm.data}
        if len(digests) > 1:
            yield f"The evaluations read different {told} ({', '.join(sorted(digests))}): arms differ in that as well."

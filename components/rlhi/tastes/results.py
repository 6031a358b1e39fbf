"""What the experiment found: win rates over the base model, contrasts, and whether the texts are still texts."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from statistics import fmean
from typing import Any

from rlhi.evaluate.clusters import interval
from rlhi.evaluate.differences import between_models, between_modes
from rlhi.evaluate.turns import Contest
from rlhi.evaluate.winrates import by_user, rewarded, win_rates
from rlhi.records import Mode
from rlhi.tastes.config import Arm, TastesConfig
from rlhi.tastes.experiment import Place
from rlhi.tastes.heldout import HeldOut, held_out
from rlhi.tastes.measuring import MODES, WAYS, Contrast, Given, perplexity
from rlhi.tastes.people import Said
from rlhi.tastes.rule import Dimension, measure


@dataclass(frozen=True, slots=True)
class Rate:
    """A share or a mean with its 95% interval, which draws users with all their turns; null is not measured."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Texts:
    """What the answers of one arm in one mode look like. ``reward`` is by the users' rules, in [-1, 1]."""

    reward: Rate
    words: float
    cut: float
    repeated: float
    perplexity: float


@dataclass(frozen=True, slots=True)
class ArmFound:
    """One arm over all seeds.

    ``wins`` are win rates over the base model by mode, ``seeds`` the persona-guided ones by seed. ``swapped`` is how
    much is lost with the opposite user's persona. ``contrasts`` holds, by way of saying, the share of requests
    where the right persona speaks for the right answer; what is said for what is liked is in ``dimensions`` by what it
    is about, in ``new_families`` for requests like none in training, and whole in ``nats``. ``followed`` is, by
    dimension, the mean of taste times measure of the answers with the user's persona, in [-1, 1]: their mean is the
    reward, and who does not listen has about 0.
    """

    arm: Arm
    training: Mapping[str, Any]
    wins: Mapping[Mode, Rate]
    seeds: Mapping[int, Rate]
    swapped: Rate
    texts: Mapping[Mode, Texts]
    contrasts: Mapping[Said, float]
    dimensions: Mapping[Dimension, float]
    new_families: float
    nats: Sequence[float]
    followed: Mapping[Dimension, Rate]
    first_pass: float | None
    margin: float | None


@dataclass(frozen=True, slots=True)
class Example:
    """One request, one persona, and what each arm said."""

    ask: str
    persona: str
    taste: Sequence[str]
    said: Mapping[Arm, str]
    rewards: Mapping[Arm, float]


@dataclass(frozen=True, slots=True)
class Ahead:
    """By how much more user-based DPO wins than another arm on the same requests; ``p`` is that of a paired test."""

    difference: Rate
    p: float | None


@dataclass(frozen=True, slots=True)
class Findings:
    """The whole experiment. ``turns`` and ``users`` are those of the test, over all ``seeds``.

    ``ahead`` compares win rates over the base model with the user's persona, by other arm. ``tried`` is the mean reward
    by the validation users of each arm with each learning rate.
    """

    arms: Sequence[ArmFound]
    examples: Sequence[Example]
    seeds: Sequence[int]
    turns: int
    users: int
    model: str
    most_tokens: int
    ahead: Mapping[Arm, Ahead]
    tried: Mapping[Arm, Mapping[float, float]]

    def of(self, arm: Arm) -> ArmFound:
        """What was found of one arm."""
        return next(each for each in self.arms if each.arm == arm)


Contests = Mapping[int, Sequence[Contest]]  # of one arm, by seed


@dataclass(frozen=True)
class _Seed:
    """One arm of one seed, read back."""

    place: Place
    tests: Sequence[HeldOut]
    answers: Mapping[tuple[str, Mode], Given]
    contrasts: Sequence[Contrast]


def gather(places: Sequence[Place], tried: Mapping[Arm, Mapping[float, float]]) -> Findings:
    """Reads what was measured at all places."""
    read = [_read(place) for place in places]
    base = {one.place.config.seed: one for one in read if one.place.arm == "base"}
    arms = {arm: [one for one in read if one.place.arm == arm] for arm in dict.fromkeys(one.place.arm for one in read)}
    met = {arm: {own.place.config.seed: _contests(own, base) for own in seeds} for arm, seeds in arms.items()}
    config, shown = read[0].place.config, [test for one in base.values() for test in one.tests]
    return Findings(
        arms=[_arm(arm, seeds, met[arm]) for arm, seeds in arms.items()],
        examples=_examples(read),
        seeds=sorted(base),
        turns=len(shown),
        users=len({test.turn.user_id for test in shown}),
        model=config.model.name,
        most_tokens=config.sampling.max_tokens,
        ahead={arm: _ahead(met["user-based"], met[arm], config) for arm in arms if arm not in ("base", "user-based")},
        tried=tried,
    )


def _read(place: Place) -> _Seed:
    config, found = place.config, place.read()
    given = [Given(**one) for one in found["answers"]]
    return _Seed(
        place,
        held_out("test", (config.users, config.turns), config.seed, config.dimensions),
        {(one.turn_id, one.mode): one for one in given},
        [Contrast(**one) for one in found["contrasts"]],
    )


def _arm(arm: Arm, seeds: Sequence[_Seed], contests: Contests) -> ArmFound:
    config = seeds[0].place.config
    everything = rewarded(chain(*contests.values()))
    rates = win_rates(everything, config.resamples, config.seed)
    differences = between_modes(everything, config.resamples, config.seed)
    lost = next(one for one in differences if (one.left, one.right) == ("persona-guided", "shuffled-persona"))
    contrasts = [one for own in seeds for one in own.contrasts]
    plain = [one for one in contrasts if one.said == "for"]
    first, margin = _learned(seeds)
    return ArmFound(
        arm=arm,
        training={} if arm == "base" else asdict(config.training),
        wins={one.mode: Rate(one.rate, one.low, one.high) for one in rates if one.part == "all"},
        seeds={seed: _guided_rate(some, config) for seed, some in contests.items()},
        swapped=Rate(lost.difference, lost.low, lost.high),
        texts={
            mode: _texts([own.answers[key] for own in seeds for key in own.answers if key[1] == mode], config)
            for mode in MODES
        },
        contrasts={way: _share(one for one in contrasts if one.said == way) for way in WAYS},
        dimensions={
            name: _share(one for one in plain if one.dimension == name)
            for name in dict.fromkeys(one.dimension for one in plain)
        },
        new_families=_share(one for one in plain if one.new_family),
        nats=[one.nats for one in plain],
        followed={name: _followed(name, seeds, config) for name in config.dimensions},
        first_pass=first,
        margin=margin,
    )


def _ahead(own: Contests, others: Contests, config: TastesConfig) -> Ahead:
    left, right = (rewarded(_guided(chain(*each.values()))) for each in (own, others))
    (found,) = between_models(("own", left), ("other", right), config.resamples, config.seed)
    return Ahead(Rate(found.difference, found.low, found.high), found.p)


def _contests(own: _Seed, bases: Mapping[int, _Seed]) -> list[Contest]:
    """The arm's answers against the base model's to the same in the same mode."""
    base, found = bases[own.place.config.seed], []
    for test in own.tests:
        for mode in MODES:
            ours, theirs = own.answers[test.turn.id, mode], base.answers[test.turn.id, mode]
            found.append(Contest(test.turn, mode, "base", ours.text, theirs.text, ours.reward, theirs.reward))
    return found


def _guided(contests: Iterable[Contest]) -> list[Contest]:
    return [one for one in contests if one.mode == "persona-guided"]


def _guided_rate(contests: Sequence[Contest], config: TastesConfig) -> Rate:
    (rate, *_) = win_rates(rewarded(_guided(contests)), config.resamples, config.seed)
    return Rate(rate.rate, rate.low, rate.high)


def _texts(given: Sequence[Given], config: TastesConfig) -> Texts:
    return Texts(
        reward=_mean([(one.user_id, one.reward) for one in given], config),
        words=fmean(one.words for one in given),
        cut=fmean(one.cut for one in given),
        repeated=fmean(one.repeated for one in given),
        perplexity=perplexity(given),
    )


def _followed(dimension: Dimension, seeds: Sequence[_Seed], config: TastesConfig) -> Rate:
    values = [
        (test.turn.user_id, getattr(test.person.taste, dimension) * getattr(measure(given.text), dimension))
        for own in seeds
        for test in own.tests
        if (given := own.answers[test.turn.id, "persona-guided"])
    ]
    return _mean(values, config)


def _mean(values: Sequence[tuple[str, float]], config: TastesConfig) -> Rate:
    low, high = interval(by_user(values), config.resamples, config.seed) or (None, None)
    return Rate(fmean(value for _, value in values), low, high)


def _share(contrasts: Iterable[Contrast]) -> float:
    """Of contrasts above nothing."""
    found = [float(one.nats > 0) for one in contrasts]
    return math.fsum(found) / len(found) if found else math.nan


def _learned(seeds: Sequence[_Seed]) -> tuple[float | None, float | None]:
    """Accuracy on the pairs of the last quarter of the steps, none of which had been seen before, and their margin."""
    from rlhi.dpo.stage import read_history

    rows = [row for own in seeds for row in _last(read_history(own.place.folder))]
    named = [[row[f"rewards/{name}"] for row in rows if f"rewards/{name}" in row] for name in ("accuracies", "margins")]
    return fmean(named[0]) if named[0] else None, fmean(named[1]) if named[1] else None


def _last(history: Sequence[Mapping[str, float]]) -> Sequence[Mapping[str, float]]:
    return history[-max(1, len(history) // 4) :]


def _examples(read: Sequence[_Seed]) -> list[Example]:
    """The first turns of users of different tastes, in the first seed."""
    first = [one for one in read if one.place.config.seed == read[0].place.config.seed]
    found = []
    for test in {test.person.taste: test for test in reversed(first[0].tests)}.values():
        own: dict[Arm, Given] = {one.place.arm: one.answers[test.turn.id, "persona-guided"] for one in first}
        said = {arm: given.text for arm, given in own.items()}
        rewards = {arm: given.reward for arm, given in own.items()}
        found.append(Example(test.ask.text, test.turn.persona, list(test.person.taste.manner), said, rewards))
    return found[::-1]

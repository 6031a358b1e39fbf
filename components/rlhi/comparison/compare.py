"""Several evaluations as one: the turns that all of them judged, each one's win rates there, and how they differ.

What can be compared is what was judged alike: by the same judge with the same prompts, asked in the same way. Turns
that not all of them judged are left out and counted, so that every figure is over the same turns; each evaluation is
held against one of them, the baseline, turn by turn.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rlhi import manifest
from rlhi.config import EngineConfig, parse
from rlhi.errors import InputError
from rlhi.evaluate.differences import Difference, between_models
from rlhi.evaluate.judge import PROMPTS
from rlhi.evaluate.results import Results, judge_of, load
from rlhi.evaluate.winrates import Outcomes, WinRate, judged, rewarded, win_rates
from rlhi.records import Mode, Opponent


@dataclass(frozen=True)
class Evaluated:
    """One evaluation by the name that a reader sees, as it is, and its win rates over the common turns."""

    name: str
    results: Results
    rates: Sequence[WinRate]

    @property
    def own_turns(self) -> int:
        """How many turns it judged, common or not."""
        return len(self.results.turns)


@dataclass(frozen=True)
class Comparison:
    """The arms, one of which, ``baseline``, the others are held against, over ``turns`` of ``users``; who judged them.

    ``changed_opponents`` answered differently in different evaluations, so nothing against them is compared.
    """

    arms: Sequence[Evaluated]
    differences: Sequence[Difference]
    baseline: str
    judge: str
    turns: frozenset[str]
    users: int
    rewards: bool
    changed_opponents: Sequence[Opponent]


NOTHING = Comparison([], [], "", "", frozenset(), 0, rewards=True, changed_opponents=[])


def compare(folders: Mapping[str, Path], baseline: str | None = None) -> Comparison:
    """Compares outputs of evaluate, by name, in order; each is held against ``baseline``, or else against the first.

    Without one of the baseline there are no differences, and without any there is nothing.

    Raises:
        InputError: one of them is none, they were not judged alike, or have no turn in common.
    """
    if not folders:
        return NOTHING
    made = {name: manifest.load(folder) for name, folder in folders.items()}
    first, *others = folders
    for other in others:
        _refuse((first, made[first]), (other, made[other]))
    found = {name: load(folder) for name, folder in folders.items()}
    turns = _common_turns(found)
    changed = _changed_opponents(list(found.values()), turns)
    rewards = len({repr(each.config["reward"]) for each in made.values()}) == 1
    how = (made[first].config["resamples"], made[first].config["seed"])
    outcomes = {name: _outcomes(each, turns, rewards, changed) for name, each in found.items()}
    against = first if baseline is None else baseline
    return Comparison(
        arms=[Evaluated(name, each, win_rates(outcomes[name], *how)) for name, each in found.items()],
        differences=_differences(outcomes, against, how),
        baseline=against,
        judge=judge_of(folders[first]),
        turns=turns,
        users=len({turn.user_id for turn in found[first].turns if turn.id in turns}),
        rewards=rewards,
        changed_opponents=changed,
    )


def _common_turns(found: Mapping[str, Results]) -> frozenset[str]:
    turns = frozenset.intersection(*(frozenset(turn.id for turn in each.turns) for each in found.values()))
    if not turns:
        raise InputError(f"{', '.join(found)}: have no turn in common; compare evaluations of the same conversations")
    return turns


def _differences(outcomes: Mapping[str, Outcomes], against: str, how: tuple[int, int]) -> list[Difference]:
    """Each other arm's from the baseline; none where that was not evaluated."""
    return [
        each
        for arm, own in outcomes.items()
        if against in outcomes and arm != against
        for each in between_models((arm, own), (against, outcomes[against]), *how)
    ]


def _outcomes(results: Results, turns: frozenset[str], rewards: bool, changed: Sequence[Opponent]) -> Outcomes:
    """What can be compared: over the common turns, against opponents that answered the same."""
    outcomes = {**judged(results.verdicts), **(rewarded(results.contests) if rewards else {})}
    return {
        key: [each for each in own if each.turn_id in turns] for key, own in outcomes.items() if key[0] not in changed
    }


def _changed_opponents(found: Sequence[Results], turns: frozenset[str]) -> list[Opponent]:
    """Those that do not give the same answers in all evaluations that hold them, such as two champions."""
    answers: dict[tuple[Opponent, Mode, str], set[str]] = defaultdict(set)
    for each in found:
        for contest in each.contests:
            if contest.turn.id in turns:
                answers[contest.opponent, contest.mode, contest.turn.id].add(contest.theirs)
    changed = {opponent for (opponent, _, _), texts in answers.items() if len(texts) > 1}
    return [opponent for opponent in get_args(Opponent) if opponent in changed]


def _refuse(first: tuple[str, manifest.Manifest], other: tuple[str, manifest.Manifest]) -> None:
    (one, left), (two, right) = first, other
    ours, theirs = _judging(left.config), _judging(right.config)
    for name, value in ours.items():
        if value != theirs[name]:
            raise InputError(
                f"{two}: evaluate.{name} is {theirs[name]!r}, of {one} it is {value!r}; only what was judged alike can "
                "be compared, so evaluate both in the same way"
            )
    if any(left.prompt_hashes.get(name) != right.prompt_hashes.get(name) for name in PROMPTS.values()):
        raise InputError(f"{two}: judged with other prompts than {one}; evaluate both with the same version")


def _judging(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of evaluate that decide what a verdict means; not where the judge runs, nor how fast."""
    judge = config["judge"]
    return {
        "judge": parse(EngineConfig, judge, "evaluate.judge").name,
        "judge.model.revision": judge["model"]["revision"],
        "judge.script": judge["script"],
        "judge.server.extra": judge["server"]["extra"],
        **{name: config[name] for name in ("method", "judge_sampling", "orders", "calibrate")},
    }

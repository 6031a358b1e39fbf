"""Makes the pages of a human study, and the key that the maker keeps.

Every person gets turns drawn by seed, without the name of either model and with the order of the answers drawn anew
(paper, 3.4: 50 turns each, under the UserEval setting). The first ``shared`` of them are everybody's, so that it can be
told how far people agree; the others are dealt so that as many turns as possible are seen.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhi.config import digest
from rlhi.errors import InputError
from rlhi.evaluate.study.sheets import Item, Key
from rlhi.evaluate.turns import Contest, HeldOutTurn
from rlhi.page import environment, script, style
from rlhi.records import Axis, Message, Mode, Opponent, Verdict

QUESTIONS: dict[Axis, str] = {
    "personalization": "Which answer fits this user better?",
    "instruction-following": "Which answer does better what was asked?",
    "usereval": "Put yourself in the user's place: which answer would you rather have?",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What the study asks whom. ``shared`` of each person's ``turns`` are the same for all."""

    persons: int
    turns: int
    shared: int
    axes: tuple[Axis, ...]
    opponent: Opponent
    mode: Mode
    seed: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One held-out turn with the two answers, and the judge's scores of ours by axis."""

    contest: Contest
    judged: Mapping[Axis, float]

    @property
    def turn(self) -> HeldOutTurn:
        """The turn that both answer."""
        return self.contest.turn


@dataclass(frozen=True, slots=True)
class Card:
    """One turn as a person sees it: nothing here tells which answer is whose."""

    number: int
    context: Sequence[Message]
    persona: str
    answers: Mapping[str, str]


def comparisons(contests: Sequence[Contest], verdicts: Sequence[Verdict], plan: Plan) -> list[Comparison]:
    """What can be shown, with the judge's scores. Where both answers are the same text, there is nothing to choose."""
    won: dict[str, dict[Axis, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in verdicts:
        if (row.opponent, row.mode) == (plan.opponent, plan.mode) and row.winner is not None:
            won[row.turn_id][row.axis].append(float((row.winner == "A") == (row.order == "model-first")))
    return [
        Comparison(each, {axis: sum(scores) / len(scores) for axis, scores in won[each.turn.id].items()})
        for each in contests
        if (each.opponent, each.mode) == (plan.opponent, plan.mode) and each.ours != each.theirs
    ]


def deal(turn_ids: Sequence[str], plan: Plan) -> list[list[str]]:
    """Each person's turns, in the order of the page; one person sees no turn twice.

    With fewer turns than a person may see, each sees all of them.
    """
    ranked = sorted(turn_ids, key=lambda turn: digest(f"study {plan.seed} {turn}"))
    shared, rest = ranked[: min(plan.shared, plan.turns)], ranked[plan.shared :]
    own = min(plan.turns - len(shared), len(rest))
    dealt = []
    for person in range(plan.persons):
        taken = [rest[(person * own + place) % len(rest)] for place in range(own)]
        dealt.append(sorted(shared + taken, key=lambda turn: digest(f"page {plan.seed} {person} {turn}")))
    return dealt


def make(found: Sequence[Comparison], plan: Plan, judge: str) -> tuple[list[str], Key]:
    """A page for each person, and the key.

    Raises:
        InputError: there is no turn to compare.
    """
    by_id = {each.turn.id: each for each in found}
    if not by_id:
        raise InputError(
            f"no turn to show: the verdicts hold none against {plan.opponent!r}, {plan.mode}, with two different "
            "answers; choose another --opponent or --mode"
        )
    persons = tuple(
        tuple(_item(by_id[turn].turn, person, plan.seed) for turn in turns)
        for person, turns in enumerate(deal(list(by_id), plan), 1)
    )
    name = digest(f"{plan} {persons} {[(each.contest.ours, each.contest.theirs) for each in found]}")
    shown = {item.turn_id for items in persons for item in items}
    judged = {turn: dict(each.judged) for turn, each in by_id.items() if turn in shown}
    key = Key(name, plan.opponent, plan.mode, plan.axes, judge, persons, judged)
    return [_page(key, person, [by_id[item.turn_id] for item in items]) for person, items in enumerate(persons, 1)], key


def _item(turn: HeldOutTurn, person: int, seed: int) -> Item:
    side = int(digest(f"side {seed} {person} {turn.id}"), 16) % 2
    return Item(turn.id, turn.user_id, "A" if side else "B")


def _page(key: Key, person: int, shown: Sequence[Comparison]) -> str:
    cards = []
    for number, (item, each) in enumerate(zip(key.persons[person - 1], shown, strict=True), 1):
        ours, theirs = each.contest.ours, each.contest.theirs
        answers = {"A": ours, "B": theirs} if item.ours == "A" else {"A": theirs, "B": ours}
        cards.append(Card(number, each.turn.context, each.turn.persona, answers))
    return (
        environment()
        .get_template("evaluate/study/study.html.j2")
        .render(
            cards=cards,
            questions={axis: QUESTIONS[axis] for axis in key.axes},
            study=key.study,
            person=person,
            style=style(),
            script=script("evaluate/study/study.js.j2"),
        )
    )

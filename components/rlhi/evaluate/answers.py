"""Lets the compared models answer the held-out turns, and rewards their answers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from rlhi.engine import Engine, Request, generate
from rlhi.evaluate.config import EvaluateConfig
from rlhi.evaluate.turns import Contest, HeldOutTurn, answered_for
from rlhi.records import Answer, Candidates, Dropped, Mode, Opponent
from rlhi.reward.model import RewardModel
from rlhi.reward.stage import reward

Player = Literal["trained", "base", "champion"]
Answers = Mapping[tuple[str, str | None], str]  # by turn and the persona that was given


class Answering(Protocol):
    """Opens an engine on one of the models, anew each time: its weights are held from the first question on."""

    def __call__(self, player: Player) -> Engine:
        """The engine."""


def answer(
    turns: Sequence[HeldOutTurn], answering: Answering, config: EvaluateConfig
) -> tuple[list[Contest], list[Dropped]]:
    """Lets the evaluated model, and the opponents that are models, answer every turn in every mode.

    A turn is answered by all in all modes, or dropped: its prompt is too long for one of them.
    """
    players: list[Player] = ["trained", *(each for each in config.opponents if each != "log")]
    long = {key for player in players for key in _too_long(turns, answering(player), config)}
    turns = [turn for turn in turns if turn.id not in long]
    answers = {player: _answers(turns, answering(player), config) for player in players}
    contests = [
        _contest(turn, mode, opponent, answers)
        for opponent in config.opponents
        for mode in config.modes
        for turn in turns
    ]
    return contests, [Dropped(key, "prompt_too_long") for key in sorted(long)]


def with_rewards(contests: Sequence[Contest], model: RewardModel) -> list[Contest]:
    """The contests with the rewards of both answers, given the persona that the judge reads in every mode.

    A turn's answers for one persona are one row.
    """
    rows: dict[tuple[str, str], Candidates] = {}
    for each in contests:
        key = (each.turn.id, each.judged_for)
        rows[key] = _with_answers(rows.get(key) or _as_candidates(each), each)
    scores = {
        (key, one.text): reward(score)
        for (key, row), own in zip(rows.items(), model.score(list(rows.values())), strict=True)
        for one, score in zip(row.answers, own, strict=True)
    }

    def rewarded(each: Contest) -> Contest:
        key = (each.turn.id, each.judged_for)
        return replace(each, our_reward=scores[key, each.ours], their_reward=scores[key, each.theirs])

    return [rewarded(each) for each in contests]


def _contest(turn: HeldOutTurn, mode: Mode, opponent: Opponent, answers: Mapping[Player, Answers]) -> Contest:
    key = (turn.id, answered_for(turn, mode))
    theirs = turn.logged if opponent == "log" else answers[opponent][key]
    return Contest(turn, mode, opponent, answers["trained"][key], theirs)


def _too_long(turns: Sequence[HeldOutTurn], engine: Engine, config: EvaluateConfig) -> set[str]:
    most = engine.max_prompt_tokens
    return {turn.id for turn in turns for each in _requests(turn, config) if engine.count_tokens(each) > most}


def _answers(turns: Sequence[HeldOutTurn], engine: Engine, config: EvaluateConfig) -> Answers:
    requests = [request for turn in turns for request in _requests(turn, config)]
    replies = generate(engine, requests, config.sampling, 1, config.seed)
    return {(request.key, request.persona): reply.text for request, (reply,) in zip(requests, replies, strict=True)}


def _requests(turn: HeldOutTurn, config: EvaluateConfig) -> list[Request]:
    """One for each persona that a mode gives: modes with the same one share the answer."""
    personas = dict.fromkeys(answered_for(turn, mode) for mode in config.modes)
    return [Request(turn.id, turn.context, persona, turn.user_id) for persona in personas]


def _as_candidates(contest: Contest) -> Candidates:
    turn = contest.turn
    return Candidates(turn.id, turn.user_id, turn.context, contest.judged_for, None, ())


def _with_answers(row: Candidates, contest: Contest) -> Candidates:
    known = {answer.text for answer in row.answers}
    new = [text for text in dict.fromkeys((contest.ours, contest.theirs)) if text not in known]
    return replace(row, answers=(*row.answers, *(Answer(text, "sample", None, None, None) for text in new)))

"""Asks the judge whether a user's persona has a bearing on how a turn should be answered; it is shown no answer."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from rlhi.conversations import transcript
from rlhi.engine import Engine, Request, generate, usual_scores
from rlhi.evaluate.config import EvaluateConfig
from rlhi.evaluate.judge import EMPTY, estimate
from rlhi.evaluate.turns import HeldOutTurn
from rlhi.questions import YES_NO, ask, bracketed, named
from rlhi.records import Message
from rlhi.render import prompt

log = logging.getLogger("rlhi")


def with_bearing(turns: Sequence[HeldOutTurn], engine: Engine, config: EvaluateConfig) -> list[HeldOutTurn]:
    """The turns with what the judge says of their persona; null where the prompt is too long or nothing can be read.

    Raises:
        InputError: with ``calibrate``, the question about nothing gets no answer.
    """
    requests = [_request(turn.id, transcript(turn.context), turn.persona, turn.user_id) for turn in turns]
    tokens = [engine.count_tokens(request) for request in requests]
    log.info("%s", estimate(tokens, config))
    fit = [request for request, n in zip(requests, tokens, strict=True) if n <= engine.max_prompt_tokens]
    said = _written(fit, engine, config) if config.method == "generate" else _chosen(fit, engine, config)
    matters = {"Yes": True, "No": False}
    return [replace(turn, persona_matters=matters.get(said.get(turn.id) or "")) for turn in turns]


def _written(requests: Sequence[Request], engine: Engine, config: EvaluateConfig) -> dict[str, str | None]:
    replies = generate(engine, requests, config.judge_sampling, 1, config.seed)
    return {
        request.key: named(reply.text, YES_NO) if reply.finish_reason == "stop" else None
        for request, (reply,) in zip(requests, replies, strict=True)
    }


def _chosen(requests: Sequence[Request], engine: Engine, config: EvaluateConfig) -> dict[str, str | None]:
    prior = None
    if config.calibrate:
        prior = usual_scores(engine, _request("prior", EMPTY, EMPTY, None), bracketed(YES_NO))
    return {each.key: each.name for each in ask(requests, YES_NO, engine, "choose", prior)}


def _request(key: str, history: str, persona: str, user: str | None) -> Request:
    text = prompt("rlhi.evaluate", "matters.j2", conversation_history=history, persona=persona)
    return Request(key, (Message("user", text),), user_id=user)
